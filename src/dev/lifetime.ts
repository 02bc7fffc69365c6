/** Lifetime of a stack, from the start of its servers to their end. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { HawserError } from "../errors/index.js";
import { giveUp, type RunDirectory } from "./run-directory.js";
import type { ServerProcess } from "./server-process.js";
import type { WatchOrder } from "./watchdog.js";

/** Options of stopping a stack. */
export interface StopOptions {
  /** Skips the graceful shutdown; Postgres recovers at its next start. Default false. */
  readonly immediately?: boolean | undefined;
}

/** Watches running servers and stops them together. */
export class Lifetime {
  /** Resolves when everything has stopped; rejects with `dev_server_failed` if a server ends by itself. */
  readonly closed: Promise<void>;
  #stopping: Promise<void> | undefined;
  #close!: () => void;

  constructor(
    readonly processes: readonly ServerProcess[],
    readonly directory?: RunDirectory | undefined,
    readonly guard?: Guard | undefined,
  ) {
    this.closed = new Promise<void>((resolve, reject) => {
      this.#close = resolve;
      for (const each of processes) {
        void each.ended.then(() => {
          if (this.#stopping === undefined) reject(each.endedEarly());
        });
      }
    });
    // A caller may ignore `closed`; an unobserved rejection must not end the process.
    this.closed.catch(() => undefined);
  }

  /**
   * Stops the servers, then releases the directory and the watchdog. A further call with `immediately` shortens the
   * shutdown.
   */
  stop({ immediately = false }: StopOptions = {}): Promise<void> {
    const ending = this.processes.map((each) => each.stop({ immediately }));
    this.#stopping ??= Promise.all(ending).then(() => this.#clearUp());
    return this.#stopping;
  }

  async #clearUp(): Promise<void> {
    if (this.directory !== undefined) giveUp(this.directory);
    // The watchdog is released last: until then it cleans up if this process dies.
    await this.guard?.release();
    this.#close();
  }
}

/** Running watchdog, which cleans up after this process if it dies; see `watchdog.ts`. */
export interface Guard {
  /** Ends the watchdog after the stack has been stopped. */
  release(): Promise<void>;
}

/**
 * Starts a watchdog for the directory and resolves when it is watching. From then on, even a kill of this process stops
 * the servers and removes a temporary directory. Throws `dev_server_failed` if the watchdog cannot be started.
 */
export async function guardDirectory(directory: RunDirectory): Promise<Guard> {
  const order: WatchOrder = { directory: directory.path, temporary: directory.temporary };
  const child = spawn(process.execPath, nodeArgs(new URL("./watchdog.js", import.meta.url)), {
    cwd: "/",
    // A session of its own, so that neither Ctrl-C nor a closed terminal ends the watchdog.
    detached: true,
    // NODE_OPTIONS is not inherited: it may name an inspector port, which is in use.
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["pipe", "pipe", "ignore"],
  });
  const ended = once(child, "exit");
  // Writing to a dead watchdog must not end this process; `ended` reports its death.
  child.stdin.on("error", () => undefined);
  child.stdin.write(`${JSON.stringify(order)}\n`);
  const ready = once(child.stdout, "data").then(() => true);
  const failed = ended.then(() => false);
  if (!(await Promise.race([ready, failed]))) {
    throw new HawserError("dev_server_failed", `The watchdog of the dev servers ended with status ${child.exitCode}.`);
  }
  child.stdout.destroy();
  // The watchdog must not keep this process alive.
  child.unref();
  (child.stdin as { unref?: () => void }).unref?.();
  return {
    release: async () => {
      if (child.exitCode !== null) return;
      child.ref();
      child.stdin.end("release\n");
      await ended;
    },
  };
}

/**
 * Arguments with which node runs a program of this package: compiled code directly, source through tsx.
 *
 * @param program URL relative to the importing module, ending in `.js` in both cases
 */
export function nodeArgs(program: URL): string[] {
  const here = fileURLToPath(import.meta.url);
  const path = fileURLToPath(program);
  if (!here.endsWith(".ts")) return [path];
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return ["--import", tsx, path.replace(/\.js$/, ".ts")];
}
