/**
 * `npm run test:node24 [-- vitest's arguments]`: the test suite on the current LTS of Node.
 *
 * Users may run a newer version of Node than the machines that build this project. The runtime comes from a package of
 * the npm registry, which the cache directory keeps; it is not a dependency of the project.
 */
import { installNode } from "./node24/install-node.js";
import { runSuite } from "./suite/run-suite.js";

const node = installNode("24");
console.error(`Running the tests on ${node.version} (${node.program})`);
// Programs that the tests start by name, such as npm and its scripts, must run on that version too.
await runSuite(process.argv.slice(2), { PATH: `${node.binDirectory}:${process.env["PATH"]}` }, node.program);
