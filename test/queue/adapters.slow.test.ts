import { it } from "vitest";
import { readPage } from "../readme/pages.js";
import { filesOf } from "../readme/snippets.js";
import { expectRowAndMessage } from "./support/page-programs.js";

it.concurrent.for(filesOf(readPage("docs/orms.md")))(
  "the program $name of docs/orms.md writes a row and a message",
  expectRowAndMessage,
);
