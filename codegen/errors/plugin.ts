import { runPlugin } from "../plugin.js";
import { generateErrors } from "./generate.js";

await runPlugin(generateErrors);
