import { runSchemaPlugin } from "./plugin.js";
import { printSql } from "./print-sql.js";

await runSchemaPlugin(printSql);
