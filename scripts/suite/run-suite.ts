import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";

/** The root of the project, with a slash at its end. */
export const project = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs the test suite as a process of its own, on this terminal, and makes its exit status ours.
 *
 * @param args vitest's arguments; without any all tests run, as by `npm run test:all`
 * @param env what differs from our environment; undefined takes a variable out
 * @param node the Node to run it on. Default: this one
 * @param directory the project, or a copy of it
 */
export async function runSuite(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  node = process.execPath,
  directory = project,
): Promise<void> {
  const asked = args.length === 0 ? ["--mode", "all"] : args;
  const child = spawn(node, [`${directory}node_modules/vitest/vitest.mjs`, "run", ...asked], {
    cwd: directory,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  // A signal to end us is meant for the suite. Ctrl-C of a terminal reaches it without us; a second one would cut its end short.
  process.on("SIGINT", (signal) => process.stdin.isTTY || child.kill(signal));
  for (const name of ["SIGTERM", "SIGHUP"] as const) process.on(name, (signal) => child.kill(signal));
  const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  process.exitCode = signal === null ? (status ?? 1) : 128 + constants.signals[signal];
}
