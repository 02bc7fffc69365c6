/**
 * `npm run test:node -- <major> [vitest's arguments]`: the test suite on another major version of Node.
 *
 * The runtime comes from a package of the npm registry, which the cache directory keeps; it is not a dependency of the
 * project.
 */
import { installNode } from "./node/install-node.js";
import { runSuite } from "./suite/run-suite.js";

const majors = ["20", "22", "24"];
const [major = "", ...args] = process.argv.slice(2);
if (majors.includes(major)) {
  const node = installNode(major);
  console.error(`Running the tests on ${node.version} (${node.program})`);
  // Programs that the tests start by name, such as npm and its scripts, must run on that version too.
  await runSuite(args, { PATH: `${node.binDirectory}:${process.env["PATH"]}` }, node.program);
} else {
  console.error(
    `"${major}" is not a major version of Node that the tests support.\n` +
      `Usage: npm run test:node -- ${majors.join("|")} [vitest's arguments]`,
  );
  process.exitCode = 64;
}
