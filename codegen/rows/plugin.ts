import { runPlugin } from "../plugin.js";
import { generateRows } from "./generate.js";

await runPlugin(generateRows);
