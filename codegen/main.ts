/** The plugin that `buf generate` runs: all of `generated/` but the codecs of the frames. */
import { generateAll } from "./generate.js";
import { runSpecPlugin } from "./plugin.js";

// json-schema-to-typescript would write what it does to stdout, which is the response's.
delete process.env["VERBOSE"];

await runSpecPlugin(generateAll);
