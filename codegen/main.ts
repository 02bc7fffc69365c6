/** The plugin that `buf generate` runs: all of `generated/` but the codecs of the frames. */
import { generateAll } from "./generate.js";
import { runSpecPlugin } from "./plugin.js";

await runSpecPlugin(generateAll);
