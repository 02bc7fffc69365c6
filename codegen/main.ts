/** The plugin that `buf generate` runs: all of `generated/` but the codecs of the frames. */
import { generateAll } from "./generate.js";
import { runPlugin } from "./plugin.js";

await runPlugin(generateAll);
