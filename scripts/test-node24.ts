/**
 * `npm run test:node24 [-- vitest's arguments]`: the test suite on the current LTS of Node.
 *
 * Users run newer versions of Node than the machines that build this project. The npm registry has the runtimes as
 * packages; this one is kept in the cache directory and is no dependency of the project.
 */
import { installNode } from "./node24/install-node.js";
import { runSuite } from "./suite/run-suite.js";

const node = installNode("24");
console.error(`Running the tests on ${node.version} (${node.program})`);
// Programs that the tests start by name, such as npm and its scripts, are to run on that version too.
await runSuite(process.argv.slice(2), { PATH: `${node.binDirectory}:${process.env["PATH"]}` }, node.program);
