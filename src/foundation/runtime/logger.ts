/** Logger interface for users, and rate limiting of warnings. */

/** Fields of a log line, except those that pino writes itself, which would appear twice. */
export type LogDetails = { readonly [field: string]: unknown } & {
  readonly [key in "level" | "time" | "pid" | "hostname" | "name" | "msg"]?: never;
};

/** Part of pino's interface that Hawser uses. */
export interface Logger {
  debug(details: LogDetails, message: string): void;
  info(details: LogDetails, message: string): void;
  warn(details: LogDetails, message: string): void;
  error(details: LogDetails, message: string): void;
}

const ignore = (): void => {};

/** Logger without output. The default, because a library should not write to its user's terminal. */
export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

/** Interval at which an identical warning is logged; in between it is counted. */
export const logIntervalMs = 10_000;
/** Number of different warnings that are logged within that interval; more are counted. */
export const maxLoggedWords = 100;

/** Logs a recurring problem: as a warning if it differs from the previous one, otherwise at level debug. */
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

  /**
   * Records that the problem is solved, so that its next occurrence is a warning. @returns true if there was a problem
   */
  clear(): boolean {
    const hadProblem = this.#last !== undefined;
    this.#last = undefined;
    return hadProblem;
  }
}

interface Line {
  readonly message: string;
  readonly words: string;
  /** Details of the first warning of an interval. */
  readonly details: LogDetails;
  /** Number of later occurrences that were not logged. */
  suppressed: number;
}

/**
 * Rate limiter for warnings that others can cause in large numbers: each is logged once per interval and counted in
 * between. Memory is bounded: only the first `maxLoggedWords` different lines of an interval are kept; further ones are
 * only counted.
 */
export class RareLog {
  readonly #lines = new Map<string, Line>();
  /** Number of warnings beyond the bound. */
  #overflow = 0;
  #timer: NodeJS.Timeout | undefined;

  readonly #logger: Logger;
  readonly #client: string;

  constructor(logger: Logger, client: string) {
    this.#logger = logger;
    this.#client = client;
  }

  /**
   * Logs the warning, or counts it if the same was logged in this interval. @param words text that distinguishes it,
   * such as a server's error message
   */
  warn(message: string, words: string, details: LogDetails = {}): void {
    const key = `${message}\n${words}`;
    const line = this.#lines.get(key);
    if (line !== undefined) {
      line.suppressed += 1;
      return;
    }
    // The counts are logged at the end of the interval. The timer does not keep the process alive.
    this.#timer ??= setTimeout(() => this.#logCounts(), logIntervalMs).unref();
    if (this.#lines.size >= maxLoggedWords) {
      this.#overflow += 1;
      return;
    }
    this.#lines.set(key, { message, words, details, suppressed: 0 });
    this.#logger.warn({ client: this.#client, words, ...details }, message);
  }

  /** Logs the counts and resets them. */
  end(): void {
    clearTimeout(this.#timer);
    this.#logCounts();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#lines.clear();
  }

  /** Logs each repeated line with its count, and keeps it for another interval. */
  #logCounts(): void {
    this.#timer = undefined;
    const client = this.#client;
    for (const [key, line] of this.#lines) {
      const { message, words, details, suppressed } = line;
      if (suppressed === 0) {
        this.#lines.delete(key);
        continue;
      }
      line.suppressed = 0;
      this.#logger.warn({ client, words, ...details, times: suppressed }, message);
    }
    if (this.#overflow > 0) {
      this.#logger.warn({ client, times: this.#overflow }, "more different warnings than are logged individually");
      this.#overflow = 0;
    }
    if (this.#lines.size > 0) this.#timer = setTimeout(() => this.#logCounts(), logIntervalMs).unref();
  }
}
