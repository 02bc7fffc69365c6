/**
 * Server as a child process: its output goes to a log file, and its unexpected end becomes an error with the last lines
 * of the log. The watchdog (`watchdog.ts`) ensures that the server does not outlive this process.
 *
 * Servers have their own process groups, so that Ctrl-C in a terminal reaches only this process, which stops them
 * gracefully.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, closeSync, constants, readFileSync, statSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { HawserError } from "../../foundation/errors/index.js";
import { openPrivate, within } from "../../foundation/runtime/index.js";
import { type PortWish, portFor } from "./free-port.js";

/** Signal, and the time before a stronger one follows. SIGKILL, the strongest, follows all of them. */
type StopStep = readonly [signal: NodeJS.Signals, timeoutMs: number];

/** SIGINT is the fast shutdown of Postgres: it ends the sessions and writes a checkpoint. SIGQUIT skips both. */
const gracefulSteps: readonly StopStep[] = [
  ["SIGINT", 10_000],
  ["SIGQUIT", 3_000],
];
const immediateSteps: readonly StopStep[] = [["SIGQUIT", 1_000]];
/** Interval of the checks whether a server answers. */
const pollMs = 5;
const portAttempts = 5;

/** Command that starts a server. */
export interface ServerCommand {
  /** Name of the server in messages. */
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** Complete environment: nothing is inherited, because variables such as PGPORT would change the server. */
  readonly env: Record<string, string>;
  /** Account to run as, if it is not the account of this process. */
  readonly account?: Account | undefined;
  /** File that receives the output. Other users cannot read it. */
  readonly logFile: string;
}

/** Running server that answers. */
export interface DevServer {
  readonly name: "Postgres" | "nats-server";
  /** URL of the server. The URL of Postgres connects as superuser, with the password. */
  readonly url: string;
  /** Version, if it is known. */
  readonly version?: string;
  /** Program and its origin, in words. */
  readonly origin: string;
}

/** Server that this process started. */
export interface StartedServer {
  readonly server: DevServer;
  readonly process: ServerProcess;
}

/** Command, port and limits of the start of a server. */
interface ServerStart {
  /** Command that starts it at a port. Called before each attempt. */
  readonly commandAt: (port: number) => ServerCommand;
  readonly port: PortWish | undefined;
  /** Option of `hawser dev` that sets the port, for errors. */
  readonly portFlag: string;
  /** True if the server answers. */
  readonly isReady: (server: ServerProcess) => boolean | Promise<boolean>;
  readonly readyTimeoutMs: number;
  readonly onProgress?: ((message: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Starts a server at the requested port or a free one, and resolves when it answers. If that fails, the caller stops the
 * process that may be running (`stopServersOf`).
 *
 * @throws HawserError `dev_server_failed`, `bind_failed`; the reason of the signal
 */
export async function startServer(
  start: ServerStart,
): Promise<{ readonly process: ServerProcess; readonly port: number }> {
  for (let attempt = 1; ; attempt++) {
    start.signal?.throwIfAborted();
    const { port, isAnother } = await portFor(start.portFlag, start.port);
    const command = start.commandAt(port);
    if (isAnother) start.onProgress?.(`The port ${start.port?.port} is in use: ${command.name} uses another one`);
    const process = await ServerProcess.start(command);
    if (await answers(process, start)) return { process, port };
    // Another program took the port between the check and the start.
    const portTaken = /address already in use/i.test(process.logTail());
    if (!portTaken || attempt === portAttempts) throw process.endedEarly();
  }
}

/** @returns false if the server ends before it answers */
async function answers(process: ServerProcess, { isReady, readyTimeoutMs, signal }: ServerStart): Promise<boolean> {
  const deadline = Date.now() + readyTimeoutMs;
  while (process.end === undefined) {
    signal?.throwIfAborted();
    if (await isReady(process)) return true;
    if (Date.now() > deadline) {
      const message = `${process.command.name} did not answer in ${readyTimeoutMs} ms. ${process.logTail()}`;
      throw new HawserError("dev_server_failed", message);
    }
    await Promise.race([delay(pollMs), process.ended]);
  }
  return false;
}

export class ServerProcess {
  /** Resolves with a description of the exit. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  #end: string | undefined;

  readonly command: ServerCommand;
  /** Time before the start (`Date.now()`, ms). */
  readonly startedAt: number;

  private constructor(command: ServerCommand, startedAt: number, child: ChildProcess, ended: Promise<string>) {
    this.command = command;
    this.startedAt = startedAt;
    this.#child = child;
    this.ended = ended.then((end) => (this.#end = end));
  }

  /**
   * Starts the process of the server. The caller waits until the server answers.
   *
   * @throws HawserError `dev_server_failed`
   */
  static async start(command: ServerCommand): Promise<ServerProcess> {
    const log = openPrivate(command.logFile);
    const startedAt = Date.now();
    try {
      const child = spawn(command.program, command.args, {
        // An account without rights may be unable to enter the current directory.
        cwd: "/",
        detached: true,
        env: command.env,
        stdio: ["ignore", log, log],
        ...command.account,
      });
      const ended = new Promise<string>((resolve) => {
        child.once("exit", (status, signal) => resolve(signal === null ? `exit status ${status}` : signal));
      });
      await new Promise<void>((resolve, reject) => {
        child.once("spawn", resolve);
        child.once("error", reject);
      });
      return new ServerProcess(command, startedAt, child, ended);
    } catch (cause) {
      throw new HawserError("dev_server_failed", `${command.name} could not be started from ${command.program}.`, {
        cause,
      });
    } finally {
      closeSync(log);
    }
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Description of the exit; undefined while the server runs. */
  get end(): string | undefined {
    return this.#end;
  }

  /** Last lines of the log, for error messages. */
  logTail(lines?: number): string {
    return tailOf(this.command.logFile, lines);
  }

  /** Error for a server that ended without being stopped. */
  endedEarly(): HawserError {
    const logText = this.logTail();
    const details = logText === "" ? "It wrote nothing to its log." : `The end of its log:\n${logText}`;
    return new HawserError("dev_server_failed", `${this.command.name} ended by itself (${this.#end}). ${details}`);
  }

  /** Stops the server, with stronger signals if weaker ones take too long; resolves when it has ended. */
  async stop(options: { readonly immediately: boolean }): Promise<void> {
    for (const [signal, timeoutMs] of options.immediately ? immediateSteps : gracefulSteps) {
      if (this.#end !== undefined) return;
      this.#child.kill(signal);
      await within(timeoutMs, this.ended);
    }
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}

/**
 * User and group that a server runs as. Postgres refuses to run as root, so there it gets an account without rights.
 */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Account that Postgres runs as: undefined for the account of this process. If this process is root, the account is
 * `nobody`, or uid 65534 if the system has no such account.
 */
export function serverAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return nobody() ?? { uid: 65534, gid: 65534 };
}

/** True if the account may pass through `path` and each directory above it. */
export function mayEnter(path: string, account: Account): boolean {
  for (let directory = resolve(path); ; directory = dirname(directory)) {
    const { mode, uid, gid } = statSync(directory);
    const executable = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & executable) === 0) return false;
    if (directory === dirname(directory)) return true;
  }
}

function nobody(): Account | undefined {
  try {
    const line = readFileSync("/etc/passwd", "utf8").match(/^nobody:[^:]*:(\d+):(\d+):/m);
    return line === null ? undefined : { uid: Number(line[1]), gid: Number(line[2]) };
  } catch {
    return undefined;
  }
}

/** Last lines of a log, for error messages; empty if there is none. */
export function tailOf(logFile: string, lines = 12): string {
  try {
    return readFileSync(logFile, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  } catch {
    return "";
  }
}

/** Full path of a program on PATH, or undefined. Relative entries of PATH are ignored. */
export function findProgram(name: string, path = process.env["PATH"] ?? ""): string | undefined {
  for (const directory of path.split(delimiter)) {
    if (!directory.startsWith("/")) continue;
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not in this directory; a later entry may have the program.
    }
  }
  return undefined;
}
