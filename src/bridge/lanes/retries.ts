import { Fifo } from "../../runtime/index.js";
import type { FunctionError, Outcome } from "./outcome.js";
import type { LaneSettings } from "./settings.js";
import type { RetryJob } from "./step.js";

/** A dead letter that failed again. */
export interface RetryFailure {
  readonly error: FunctionError;
  readonly attempts: number;
}

/** Dead letters that are to be tried again, first in, first out, and what became of the tries of the first one. */
export class Retries {
  readonly #jobs = new Fifo<RetryJob>();
  #attempts = 0;
  #losses = 0;
  #transients = 0;

  readonly #settings: LaneSettings;

  constructor(settings: LaneSettings) {
    this.#settings = settings;
  }

  get length(): number {
    return this.#jobs.length;
  }

  get first(): RetryJob | undefined {
    return this.#jobs.at(0);
  }

  push(job: RetryJob): void {
    this.#jobs.push(job);
  }

  /** The first one was tried without success. Returns what ends it; undefined if it is to be tried again. */
  tried(
    outcome: Exclude<Outcome, { kind: "committed" | "partly" | "unavailable" | "deposed" | "fetched" }>,
  ): RetryFailure | undefined {
    const settings = this.#settings;
    const attempts = ++this.#attempts;
    if (outcome.kind === "session_lost") {
      return ++this.#losses < 2 ? undefined : { error: sessionLostTwice(settings, outcome.message), attempts };
    }
    // Without this limit, a dead letter that is never done would make the messages behind it wait again and again.
    if (outcome.kind === "transient" && ++this.#transients < settings.retryTries) return undefined;
    return { error: outcome.error, attempts };
  }

  /** The first one is done, or has been kept. */
  shift(): void {
    this.#jobs.shift();
    this.#attempts = this.#losses = this.#transients = 0;
  }

  clear(): void {
    this.#jobs.clear();
  }
}

/** The error of a message that has ended two sessions while it was alone. */
export function sessionLostTwice(settings: LaneSettings, message: string): FunctionError {
  return {
    code: settings.sessionLostCode,
    message: `The database session ended twice while the function ran for this message alone: ${message}`,
  };
}
