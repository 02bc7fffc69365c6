import { it } from "vitest";
import { expectSaidOutput } from "./sql-page.js";

it("the SQL examples of README.md print what it says", () => expectSaidOutput("README.md"));
