import { runSchemaPlugin } from "./plugin.js";
import { printTypeScript } from "./print-typescript.js";

await runSchemaPlugin(printTypeScript);
