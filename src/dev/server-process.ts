/**
 * A server as a child process: its output goes to a log file, its unexpected end becomes an error that shows the log's
 * last lines. That it does not outlive us is the watchdog's part (`watchdog.ts`).
 *
 * Servers get a process group of their own, so that Ctrl-C in a terminal reaches only us and we stop them in order.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, closeSync, constants, readFileSync, statSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { HawserError } from "../errors/index.js";
import { openPrivate } from "../files/index.js";
import { within } from "../runtime/index.js";

/** A signal, and how long it is given before a stronger one follows. The strongest, SIGKILL, follows all of them. */
type StopStep = readonly [signal: NodeJS.Signals, timeoutMs: number];

/** SIGINT is Postgres's fast shutdown: it ends the sessions and writes a checkpoint. SIGQUIT does without both. */
const inOrder: readonly StopStep[] = [
  ["SIGINT", 10_000],
  ["SIGQUIT", 3_000],
];
const atOnce: readonly StopStep[] = [["SIGQUIT", 1_000]];

/** What to start. */
export interface ServerCommand {
  /** The server's name in messages. */
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** The whole environment: nothing of ours is inherited, because variables such as PGPORT would change the server. */
  readonly env: Record<string, string>;
  /** The account to run as, if it is not that of this process. */
  readonly account?: Account | undefined;
  /** The file its output is appended to. Others cannot read it. */
  readonly logFile: string;
}

/** A server that answers. */
export interface DevServer {
  readonly name: "Postgres" | "nats-server";
  /** That of Postgres connects as superuser, with the password. */
  readonly url: string;
  /** Its version, where it is known. */
  readonly version?: string;
  /** Which program runs and where it comes from, in words. */
  readonly origin: string;
}

/** A server that was started here. */
export interface StartedServer {
  readonly server: DevServer;
  readonly process: ServerProcess;
}

/** The process of a server. */
export class ServerProcess {
  /** Resolves with a description of how it ended, once it has. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  #end: string | undefined;

  readonly command: ServerCommand;

  private constructor(command: ServerCommand, child: ChildProcess, ended: Promise<string>) {
    this.command = command;
    this.#child = child;
    this.ended = ended.then((end) => (this.#end = end));
  }

  /** Starts the server's process. That it answers is for the caller to find out. Throws `dev_server_failed`. */
  static async start(command: ServerCommand): Promise<ServerProcess> {
    const log = openPrivate(command.logFile);
    try {
      const child = spawn(command.program, command.args, {
        // An account without rights may be unable to enter the directory we were started in.
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
      return new ServerProcess(command, child, ended);
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

  /** How it ended, or undefined while it runs. */
  get end(): string | undefined {
    return this.#end;
  }

  /** The last lines of its log, for error messages. */
  logTail(lines = 12): string {
    try {
      return readFileSync(this.command.logFile, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
    } catch {
      return "";
    }
  }

  /** The error of a server that ended although nobody stopped it. */
  endedEarly(): HawserError {
    const said = this.logTail();
    const details = said === "" ? "It wrote nothing to its log." : `The end of its log:\n${said}`;
    return new HawserError("dev_server_failed", `${this.command.name} ended by itself (${this.#end}). ${details}`);
  }

  /** Stops it, by stronger means when weaker ones take too long; resolves when it has ended. */
  async stop(options: { readonly immediately: boolean }): Promise<void> {
    for (const [signal, timeoutMs] of options.immediately ? atOnce : inOrder) {
      if (this.#end !== undefined) return;
      this.#child.kill(signal);
      await within(timeoutMs, this.ended);
    }
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}

/** A user and group to run a server as. Postgres refuses to run as root: then it gets an account without rights. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The account that Postgres runs as: undefined means that of this process. Postgres refuses to run as root, so where this
 * process is root, it is the account `nobody`, or the number 65534 if the system has no such account.
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

/** The full path of a program on PATH, or undefined. Relative entries of PATH are not looked at. */
export function findProgram(name: string, path = process.env["PATH"] ?? ""): string | undefined {
  for (const directory of path.split(delimiter)) {
    if (!directory.startsWith("/")) continue;
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not here; the next entry may have it.
    }
  }
  return undefined;
}
