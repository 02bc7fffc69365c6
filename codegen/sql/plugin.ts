import { runPlugin } from "../plugin.js";
import { generateSql } from "./generate.js";

await runPlugin(generateSql);
