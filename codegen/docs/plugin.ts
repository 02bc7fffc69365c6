import { runPlugin } from "../plugin.js";
import { generateDocs } from "./generate.js";

await runPlugin(generateDocs);
