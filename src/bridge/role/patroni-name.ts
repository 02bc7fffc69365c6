/**
 * The name that Patroni has for this Postgres, and what is logged where it cannot be had.
 */

import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { Logger } from "../../runtime/index.js";
import { requestPatroniName } from "./patroni-request.js";

/** Asks Patroni. What goes wrong is logged when it begins and when it becomes something else, not each time. */
export class PatroniName {
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  /** What was logged last, if it has not been well since. */
  #logged: string | undefined;

  /** @param timeoutMs for the whole answer; default `patroniTimeoutMs` of the spec */
  constructor(logger: Logger, timeoutMs: number = bridgeConstants.patroniTimeoutMs) {
    this.#logger = logger;
    this.#timeoutMs = timeoutMs;
  }

  /** The name; null where it cannot be had. Does not reject. @param url the option `patroni_url` */
  async ask(url: string, signal: AbortSignal): Promise<string | null> {
    const answer = await requestPatroniName(url, this.#timeoutMs, signal);
    if (signal.aborted) return null;
    if ("name" in answer) {
      this.#logged = undefined;
      return answer.name;
    }
    const patroni = originOf(url);
    const { problem } = answer;
    const line = `${patroni} ${problem}`;
    const level = line === this.#logged ? "debug" : "warn";
    this.#logged = line;
    this.#logger[level](
      { patroni, problem },
      "Patroni does not tell the name of this Postgres, and role-change notices are without it: see to Patroni, or to " +
        "the option patroni_url",
    );
    return null;
  }
}

/** Without path and query, in which a secret may be. */
function originOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).origin : undefined;
}
