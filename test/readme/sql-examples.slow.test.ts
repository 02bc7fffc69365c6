/** Those of README.md are in `sql-examples.test.ts`. */
import { it } from "vitest";
import { expectSaidOutput, pagesWithSql } from "./sql-page.js";

const pages = pagesWithSql.filter((page) => page !== "README.md");

it.each(pages)("the SQL examples of %s print what the page says", { timeout: 120_000 }, expectSaidOutput);
