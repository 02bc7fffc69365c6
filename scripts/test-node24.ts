/**
 * `npm run test:node24 [-- vitest's arguments]`: the test suite on the current LTS of Node.
 *
 * Users run newer versions of Node than the machines that build this project. The npm registry has the runtimes as
 * packages; this one is kept in the cache directory and is no dependency of the project.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { installNode } from "./node24/install-node.js";

const project = fileURLToPath(new URL("..", import.meta.url));
const node = await installNode("24");
console.error(`Running the tests on ${node.version} (${node.program})`);

const vitest = `${project}node_modules/.bin/vitest`;
const { status, error } = spawnSync(node.program, [vitest, "run", ...process.argv.slice(2)], {
  cwd: project,
  stdio: "inherit",
  // Programs that the tests start by name, such as npm and its scripts, are to run on that version too.
  env: { ...process.env, PATH: `${node.binDirectory}:${process.env["PATH"]}` },
});
if (error !== undefined) throw error;
process.exitCode = status ?? 1;
