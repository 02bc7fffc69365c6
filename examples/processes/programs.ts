/**
 * Programs as processes: started, listened to, killed, and ended with what started them.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** How long a program may take to end after it was asked to. */
const STOP_TIMEOUT_MS = 8_000;

/** A program that runs, or has run. */
export interface Program {
  readonly pid: number;
  /** Resolves with its exit status, or the signal that ended it, once all of its output was printed. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Resolves when it has printed a line that contains the text. @throws if it ends without */
  printed(text: string): Promise<void>;
  /** Asks it to end (SIGTERM, later SIGKILL) and resolves as `ended` does. */
  stop(): Promise<number | NodeJS.Signals>;
  /** Ends it by SIGKILL, as the kernel does, and resolves as `ended` does. */
  kill(): Promise<number | NodeJS.Signals>;
}

/** What the programs are started with. */
export interface ProgramsOptions {
  /** Where they are. */
  readonly folder: URL;
  readonly databaseUrl: string;
  readonly natsUrl: string;
  /** Variables to add to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Told each line that a program prints. */
  readonly onLine: (program: string, pid: number, line: string) => void;
}

/** Some programs. When it is disposed of, or its signal aborts, those that still run are stopped. */
export class Programs implements AsyncDisposable {
  readonly #running = new Set<Program>();

  readonly #options: ProgramsOptions;

  constructor(options: ProgramsOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => void this[Symbol.asyncDispose]());
  }

  /** Starts `<name>.ts` of the folder. */
  start(name: string): Program {
    const { folder, databaseUrl, natsUrl, env, signal, onLine } = this.#options;
    signal.throwIfAborted();
    const child = fork(fileURLToPath(new URL(`${name}.ts`, folder)), {
      env: { ...process.env, ...env, HAWSER_DATABASE_URL: databaseUrl, NATS_URL: natsUrl },
      // Lines are told one by one; what goes wrong goes to standard error as it is.
      stdio: ["ignore", "pipe", "inherit", "ipc"],
    });
    const program = programOf(name, child, (line) => onLine(name, program.pid, line));
    this.#running.add(program);
    void program.ended.then(() => this.#running.delete(program));
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running].map((program) => program.stop()));
  }
}

function programOf(name: string, child: ChildProcess, onLine: (line: string) => void): Program {
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout! });
  reader.on("line", (line) => {
    lines.push(line);
    onLine(line);
  });
  const ended = Promise.all([once(child, "exit"), once(reader, "close")]).then(
    ([[status, signal]]) => (status ?? signal) as number | NodeJS.Signals,
  );
  return {
    pid: child.pid!,
    ended,
    async printed(text) {
      const isThere = () => lines.some((line) => line.includes(text));
      while (!isThere()) {
        const end = await Promise.race([ended, once(reader, "line").then(() => undefined)]);
        if (end !== undefined && !isThere()) throw new Error(`${name}.ts ended (${end}) and never printed "${text}"`);
      }
    },
    async stop() {
      child.kill("SIGTERM");
      const killing = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      const end = await ended;
      clearTimeout(killing);
      return end;
    },
    kill() {
      child.kill("SIGKILL");
      return ended;
    },
  };
}
