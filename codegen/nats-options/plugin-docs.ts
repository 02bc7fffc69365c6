import { runSchemaPlugin } from "./plugin.js";
import { printDocs } from "./print-docs.js";

await runSchemaPlugin(printDocs);
