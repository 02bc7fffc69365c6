/**
 * Looks at which SQL functions NATS reaches: when it is told that something may have changed, and now and then besides.
 * There is one look at a time.
 */

import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import type { Logger } from "../runtime/index.js";
import { explainServeRefusal } from "../store/index.js";
import { type Handlers, readHandlers } from "./handlers.js";

const { optionsPollMs } = gatewayConstants;

/** Where it looks, and who hears of it. */
export interface HandlerLookOptions {
  readonly session: PostgresSession;
  readonly logger: Logger;
  /** What there is now. What it rejects with is told as if it could not be read. */
  onHandlers(handlers: Handlers): Promise<void>;
  /** A look has ended, however it went. */
  onLooked(): void;
}

/** See above. */
export class HandlerLook {
  readonly #options: HandlerLookOptions;
  #looking: Promise<void> | undefined;
  #looksAgain = false;
  #timer: NodeJS.Timeout | undefined;
  /** What was last logged of why it cannot be read. */
  #problem: string | undefined;
  #isStopped = false;

  constructor(options: HandlerLookOptions) {
    this.#options = options;
  }

  /** Looks, now and from then on; what goes wrong is logged, and the next look comes all the same. Does not reject. */
  look(): Promise<void> {
    clearTimeout(this.#timer);
    this.#looking ??= this.#read().finally(() => {
      this.#looking = undefined;
      const again = this.#looksAgain;
      this.#looksAgain = false;
      if (this.#isStopped) return;
      if (again) void this.look();
      else this.#timer = setTimeout(() => void this.look(), optionsPollMs);
    });
    return this.#looking;
  }

  /** Looks once more if a look is under way: it may have begun before the change. */
  soon(): void {
    if (this.#looking === undefined) void this.look();
    else this.#looksAgain = true;
  }

  /** Resolves after a look that began after this call. Does not reject. */
  async fresh(): Promise<void> {
    await this.#looking;
    await this.look();
  }

  /** Looks no more by itself, and tells nothing any more of what it reads. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Resolves when no look is under way. Does not reject. */
  async ended(): Promise<void> {
    await this.#looking;
  }

  async #read(): Promise<void> {
    const { session, logger, onHandlers, onLooked } = this.#options;
    try {
      // It listens once it can.
      await session.isStandby();
      const handlers = await readHandlers(session);
      if (this.#isStopped) return;
      this.#problem = undefined;
      await onHandlers(handlers);
    } catch (cause) {
      if (this.#isStopped) return;
      const { code, message } = await explainServeRefusal(session, "read which functions NATS reaches", cause);
      const level = message === this.#problem ? "debug" : "warn";
      this.#problem = message;
      logger[level]({ code, problem: message }, "which functions NATS reaches cannot be read");
    } finally {
      onLooked();
    }
  }
}
