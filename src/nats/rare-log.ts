/**
 * Warnings that a server can cause by the thousand: each is logged once per interval, and counted in between.
 */
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { Logger } from "./logger.js";

const { natsLogIntervalMs, maxLoggedWords } = gatewayConstants;

interface Line {
  readonly message: string;
  readonly words: string;
  /** How often it was not logged since it was. */
  leftOut: number;
}

/** See above. Memory is bounded: of at most `maxLoggedWords` different lines per interval more is known than their number. */
export class RareLog {
  readonly #lines = new Map<string, Line>();
  /** Lines beyond the bound. */
  #beyond = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly logger: Logger,
    private readonly client: string,
  ) {}

  /** Logs the line now, or counts it. @param words of the server, to be shown */
  warn(message: string, words: string): void {
    const key = `${message}\n${words}`;
    const line = this.#lines.get(key);
    if (line !== undefined) {
      line.leftOut += 1;
      return;
    }
    // Also where nobody asks any more: what was counted is told in the end. It keeps no process alive.
    this.#timer ??= setTimeout(() => this.#tell(), natsLogIntervalMs).unref();
    if (this.#lines.size >= maxLoggedWords) {
      this.#beyond += 1;
      return;
    }
    this.#lines.set(key, { message, words, leftOut: 0 });
    this.logger.warn({ client: this.client, words }, message);
  }

  /** Tells what was counted, and forgets all. */
  end(): void {
    clearTimeout(this.#timer);
    this.#tell();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#lines.clear();
  }

  /** A line that came again is told with its number, and counts as logged for another interval. */
  #tell(): void {
    this.#timer = undefined;
    const { client } = this;
    for (const [key, line] of this.#lines) {
      const { message, words, leftOut } = line;
      if (leftOut === 0) {
        this.#lines.delete(key);
        continue;
      }
      line.leftOut = 0;
      this.logger.warn({ client, words, times: leftOut }, message);
    }
    if (this.#beyond > 0) {
      this.logger.warn({ client, times: this.#beyond }, "NATS refused or complained of more than is logged at once");
      this.#beyond = 0;
    }
    if (this.#lines.size > 0) this.#timer = setTimeout(() => this.#tell(), natsLogIntervalMs).unref();
  }
}
