/** Detached programs of this package, which outlive the process that starts them: watchdogs, and keepers of test runs. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

/**
 * Starts a program in a session of its own, so that neither Ctrl-C nor a closed terminal ends it. It does not keep this
 * process alive. Its channel to this process disconnects when this process ends.
 *
 * Resolves when the program calls {@link reportReady}, or has ended. Rejects if it cannot be started.
 *
 * @param program URL from above the folder of the importing module, such as `../dev/watchdog.js`, because a bundle puts the
 * module into another folder; ends in `.js` for sources, too
 * @param env complete environment; NODE_OPTIONS may name an inspector port, which is in use
 * @param log file descriptor that receives the output. Default: none
 */
export async function startDetached(
  program: URL,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  log: number | "ignore" = "ignore",
): Promise<ChildProcess> {
  const child = spawn(process.execPath, [...nodeArgs(program), ...args], {
    cwd: "/",
    detached: true,
    env,
    stdio: ["ignore", log, log, "ipc"],
  });
  await Promise.race([once(child, "message"), once(child, "exit")]);
  child.unref();
  child.channel?.unref();
  return child;
}

/** Resolves {@link startDetached}, if the process that called it still runs. */
export function reportReady(): void {
  process.send?.("ready", () => undefined);
}

/** Arguments with which node runs a program of this package: compiled code directly, source through tsx. */
function nodeArgs(program: URL): string[] {
  const here = fileURLToPath(import.meta.url);
  const path = fileURLToPath(program);
  if (!here.endsWith(".ts")) return [path];
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return ["--import", tsx, path.replace(/\.js$/, ".ts")];
}
