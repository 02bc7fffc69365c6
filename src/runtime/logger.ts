/**
 * The logger that a user gives us, and how warnings that come in crowds are written to it.
 */
import { gatewayConstants } from "../../generated/ts/settings/nats.js";

/** Fields of one log line, but not those that pino writes itself: a field of the same name would be in the line a second time. */
export type LogDetails = { readonly [field: string]: unknown } & {
  readonly [key in "level" | "time" | "pid" | "hostname" | "name" | "msg"]?: never;
};

/** The part of pino's interface that Hawser uses. */
export interface Logger {
  debug(details: LogDetails, message: string): void;
  info(details: LogDetails, message: string): void;
  warn(details: LogDetails, message: string): void;
  error(details: LogDetails, message: string): void;
}

const ignore = (): void => {};

/** Says nothing. The default, because a library does not write on its user's terminal. */
export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

const { natsLogIntervalMs, maxLoggedWords } = gatewayConstants;

/** Logs a problem that comes again at each try: as a warning when it is another one than before, else for debugging. */
export class ProblemLog {
  readonly #logger: Logger;
  #last: string | undefined;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  tell(problem: string, message: string, details: LogDetails = {}): void {
    const level = problem === this.#last ? "debug" : "warn";
    this.#last = problem;
    this.#logger[level]({ problem, ...details }, message);
  }

  /** The problem is over: should it come again, it is a warning again. @returns whether there was one */
  clear(): boolean {
    const hadProblem = this.#last !== undefined;
    this.#last = undefined;
    return hadProblem;
  }
}

interface Line {
  readonly message: string;
  readonly words: string;
  /** Those of the first warning of an interval. */
  readonly details: LogDetails;
  /** How often it came since, and was not logged. */
  leftOut: number;
}

/**
 * Logs warnings that others can cause by the thousand: each once per interval, and counted in between. Memory is bounded:
 * only the first `maxLoggedWords` different lines of an interval are kept, the others only counted.
 */
export class RareLog {
  readonly #lines = new Map<string, Line>();
  /** How many came beyond the bound. */
  #beyond = 0;
  #timer: NodeJS.Timeout | undefined;

  readonly #logger: Logger;
  readonly #client: string;

  constructor(logger: Logger, client: string) {
    this.#logger = logger;
    this.#client = client;
  }

  /** Logs the warning, or counts it if the same was logged in this interval. @param words tell it apart, such as a server's */
  warn(message: string, words: string, details: LogDetails = {}): void {
    const key = `${message}\n${words}`;
    const line = this.#lines.get(key);
    if (line !== undefined) {
      line.leftOut += 1;
      return;
    }
    // What was counted is logged at the end of the interval. The timer keeps no process alive.
    this.#timer ??= setTimeout(() => this.#tell(), natsLogIntervalMs).unref();
    if (this.#lines.size >= maxLoggedWords) {
      this.#beyond += 1;
      return;
    }
    this.#lines.set(key, { message, words, details, leftOut: 0 });
    this.#logger.warn({ client: this.#client, words, ...details }, message);
  }

  /** Logs what was counted, and forgets everything. */
  end(): void {
    clearTimeout(this.#timer);
    this.#tell();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#lines.clear();
  }

  /** Logs each line that came again, with how often, and keeps it for another interval. */
  #tell(): void {
    this.#timer = undefined;
    const client = this.#client;
    for (const [key, line] of this.#lines) {
      const { message, words, details, leftOut } = line;
      if (leftOut === 0) {
        this.#lines.delete(key);
        continue;
      }
      line.leftOut = 0;
      this.#logger.warn({ client, words, ...details, times: leftOut }, message);
    }
    if (this.#beyond > 0) {
      this.#logger.warn({ client, times: this.#beyond }, "more different warnings came than are logged at once");
      this.#beyond = 0;
    }
    if (this.#lines.size > 0) this.#timer = setTimeout(() => this.#tell(), natsLogIntervalMs).unref();
  }
}
