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
  process.exitCode = (await suiteStatus(args.length === 0 ? ["--mode", "all"] : args, env, node, directory)).status;
}

/** End of the test suite: its exit status as a shell says it, and the signal that this process was ended with, if any. */
export interface SuiteEnd {
  readonly status: number;
  readonly interrupted: NodeJS.Signals | undefined;
}

/** Runs it, as {@link runSuite} does, and resolves with its end. */
export async function suiteStatus(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  node = process.execPath,
  directory = project,
): Promise<SuiteEnd> {
  const child = spawn(node, [`${directory}node_modules/vitest/vitest.mjs`, "run", ...args], {
    cwd: directory,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  let interrupted: NodeJS.Signals | undefined;
  // Signals to this process are passed on to the suite. Ctrl-C in a terminal reaches the suite directly; passing it on
  // too would interrupt its shutdown.
  const passOn = (signal: NodeJS.Signals): void => {
    interrupted = signal;
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, passOn);
  const [status, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  for (const name of signals) process.off(name, passOn);
  return { status: signal === null ? (status ?? 1) : 128 + constants.signals[signal], interrupted };
}
