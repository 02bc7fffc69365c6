/** Progress and result of a message, as its handler gives them, if the result is kept. */
import { namedRules } from "../../../generated/ts/rules/named.js";
import { errorMessageOf, HawserError, invalidArgument } from "../../foundation/errors/index.js";
import type { KeptResult } from "../channel/index.js";
import { escaped } from "../store/index.js";

/** Minimum time between two writes of the progress of a message. */
const progressMs = 1_000;

export class KeptOutcome implements KeptResult {
  json: string | undefined = undefined;
  durationMs = 0;
  readonly #write: (json: string) => void;
  /** Progress that is written next; undefined if the last one is written. */
  #next: string | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param write writes the progress of the message */
  constructor(write: (json: string) => void) {
    this.#write = write;
  }

  progress(value: unknown): void {
    this.#next = progressJson(value);
    if (this.#timer === undefined) this.#writeNext();
  }

  #writeNext(): void {
    this.#timer = undefined;
    if (this.#next === undefined) return;
    this.#write(this.#next);
    this.#next = undefined;
    this.#timer = setTimeout(() => this.#writeNext(), progressMs).unref();
  }

  returned(value: unknown, durationMs: number): void {
    this.#next = undefined;
    this.durationMs = Math.round(durationMs);
    const { maxBytes } = namedRules.jobResult;
    try {
      this.json = jsonOf(value);
    } catch (error) {
      throw new HawserError("rejected", `its result cannot be kept: ${errorMessageOf(error)}`, { cause: error });
    }
    if (this.json === undefined || this.json.length <= maxBytes) return;
    const why = `its result has ${this.json.length} bytes as JSON, and ${maxBytes} can be kept`;
    throw new HawserError("rejected", `${why}; return less, for example a reference to it`);
  }
}

/** JSON of a value for `message.progress`. @throws HawserError `invalid_argument` for one that is too long or that JSON cannot carry */
export function progressJson(value: unknown): string {
  const { maxBytes } = namedRules.jobProgress;
  const json = jsonOf(value) ?? "null";
  if (json.length <= maxBytes) return json;
  throw invalidArgument(
    `progress of ${json.length} bytes as JSON: must be at most ${maxBytes} bytes long; give less, for example a number`,
  );
}

/** JSON in ASCII, which each database can represent. Undefined if JSON has no such value. */
function jsonOf(value: unknown): string | undefined {
  try {
    const json = JSON.stringify(value) as string | undefined;
    return json && escaped(json);
  } catch (cause) {
    throw invalidArgument(`JSON cannot represent the value: ${errorMessageOf(cause)}`);
  }
}
