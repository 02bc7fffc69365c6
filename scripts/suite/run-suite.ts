import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";

/** Root of the project, with a trailing slash. */
export const project = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs the test suite as a child process on this terminal, and sets the exit status of this process to that of the
 * child.
 *
 * @param args vitest's arguments; without any, all tests run, as with `npm run test:all`
 * @param env changes to the environment of this process; undefined removes a variable
 * @param node the Node.js program. Default: the current one
 * @param directory the project, or a copy of it
 */
export async function runSuite(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  node = process.execPath,
  directory = project,
): Promise<void> {
  const vitestArgs = args.length === 0 ? ["--mode", "all"] : args;
  const child = spawn(node, [`${directory}node_modules/vitest/vitest.mjs`, "run", ...vitestArgs], {
    cwd: directory,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  // Signals to this process are passed on to the suite. Ctrl-C in a terminal reaches the suite directly; passing it on
  // too would interrupt its shutdown.
  process.on("SIGINT", (signal) => process.stdin.isTTY || child.kill(signal));
  for (const name of ["SIGTERM", "SIGHUP"] as const) process.on(name, (signal) => child.kill(signal));
  const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  process.exitCode = signal === null ? (status ?? 1) : 128 + constants.signals[signal];
}
