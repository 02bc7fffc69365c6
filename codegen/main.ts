/** Plugin of `buf generate` for this project: generates all of `generated/` except the types of the frames. */
import { generateAll } from "./generate.js";
import { runSpecPlugin } from "./plugin.js";

// With VERBOSE, json-schema-to-typescript writes to stdout, which carries the plugin's response.
delete process.env["VERBOSE"];

await runSpecPlugin(generateAll);
