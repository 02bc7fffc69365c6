/**
 * The time of a stack from the start of its servers to their end.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { HawserError } from "../errors/index.js";
import { giveUp, type RunDirectory } from "./run-directory.js";
import type { ServerProcess } from "./server-process.js";
import type { WatchOrder } from "./watchdog.js";

/** How the servers are to stop. */
export interface StopOptions {
  /** Without ending their work in order: Postgres recovers at its next start. Default false. */
  readonly immediately?: boolean | undefined;
}

/** Watches the servers while they run and ends them together. */
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
    // Not everybody asks; a failure that nobody asks about must not end the process.
    this.closed.catch(() => undefined);
  }

  /** Stops the servers, then the directory and the watchdog go. A further call can only hurry the first one. */
  stop({ immediately = false }: StopOptions = {}): Promise<void> {
    const ending = this.processes.map((each) => each.stop({ immediately }));
    this.#stopping ??= Promise.all(ending).then(() => this.#clearUp());
    return this.#stopping;
  }

  async #clearUp(): Promise<void> {
    if (this.directory !== undefined) giveUp(this.directory);
    // Last: until here it would do what we may not come to.
    await this.guard?.release();
    this.#close();
  }
}

/** The running watchdog, which clears up after this process if it dies; see `watchdog.ts`. */
export interface Guard {
  /** Ends the watchdog: the stack has been stopped in order. */
  release(): Promise<void>;
}

/**
 * Starts a watchdog for the directory and resolves when it watches. From then on the servers stop, and a temporary
 * directory goes, also if this process is killed. Throws `dev_server_failed` if it cannot be started.
 */
export async function guardDirectory(directory: RunDirectory): Promise<Guard> {
  const order: WatchOrder = { directory: directory.path, temporary: directory.temporary };
  const child = spawn(process.execPath, nodeArgs(new URL("./watchdog.js", import.meta.url)), {
    cwd: "/",
    // A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    detached: true,
    // Not our NODE_OPTIONS: an inspector port, say, is taken already.
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["pipe", "pipe", "ignore"],
  });
  const ended = once(child, "exit");
  // Writing to a watchdog that has died must not end us; that it died shows in `ended`.
  child.stdin.on("error", () => undefined);
  child.stdin.write(`${JSON.stringify(order)}\n`);
  const ready = once(child.stdout, "data").then(() => true);
  const failed = ended.then(() => false);
  if (!(await Promise.race([ready, failed]))) {
    throw new HawserError("dev_server_failed", `The watchdog of the dev servers ended with status ${child.exitCode}.`);
  }
  child.stdout.destroy();
  // Watching us must not keep us alive.
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
 * How node runs a program of this package: compiled as it stands, from source through tsx.
 *
 * @param program its URL beside the one who asks, ending in `.js` either way
 */
export function nodeArgs(program: URL): string[] {
  const here = fileURLToPath(import.meta.url);
  const path = fileURLToPath(program);
  if (!here.endsWith(".ts")) return [path];
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return ["--import", tsx, path.replace(/\.js$/, ".ts")];
}
