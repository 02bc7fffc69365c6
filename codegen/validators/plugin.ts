import { runPlugin } from "../plugin.js";
import { generateValidators } from "./generate.js";

await runPlugin(generateValidators);
