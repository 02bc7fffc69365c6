/**
 * What is logged of the definition of the NATS server: each state once, when it begins, and the end of trouble.
 */

import type { HawserError } from "../errors/index.js";
import type { Logger } from "../runtime/index.js";

/** See above. */
export class WatchNews {
  #state: "unknown" | "defined" | "undefined" | "trouble" = "unknown";
  #trouble = "";
  #hasFunctions = true;
  #ignored: string | undefined;

  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  /** The definition can be used, or there is none. */
  found(isDefined: boolean): void {
    const state = isDefined ? "defined" : "undefined";
    if (this.#state === "trouble") {
      this.#logger.info({}, "what the database says about NATS can be used again");
      this.#trouble = "";
    }
    if (state !== this.#state && !isDefined) {
      this.#logger.info(
        {},
        "no NATS server is defined in this database: it is waited for (CREATE SERVER, or SELECT hawser.set_nats_server)",
      );
    }
    this.#state = state;
  }

  /** The definition cannot be read or used. */
  failed({ code, message, detail, hint }: HawserError): void {
    const level = this.#state === "trouble" && message === this.#trouble ? "debug" : "warn";
    this.#state = "trouble";
    this.#trouble = message;
    this.#logger[level]({ code, detail, hint, problem: message }, "what the database says about NATS cannot be used");
  }

  functionsAreThere(areThere: boolean): void {
    if (areThere === this.#hasFunctions) return;
    this.#hasFunctions = areThere;
    if (areThere) this.#logger.info({}, "the SQL functions are installed now");
    else this.#logger.warn({}, "the SQL functions are not installed in this database: run `hawser init`");
  }

  /** A user mapping is there that does not count. */
  ignores(what: string | undefined): void {
    if (what !== undefined && what !== this.#ignored) this.#logger.warn({}, what);
    this.#ignored = what;
  }
}
