import { runPlugin } from "../plugin.js";
import { generateSettings } from "./generate.js";

await runPlugin(generateSettings);
