import { it } from "vitest";
import { expectRowAndMessage, programs } from "./support/page-programs.js";

it.concurrent.each(programs)(
  "the program $name of docs/transactional.md writes a row and a message",
  expectRowAndMessage,
);
