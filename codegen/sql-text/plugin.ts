import { runPlugin } from "../plugin.js";
import { generateSqlText } from "./generate.js";

await runPlugin(generateSqlText);
