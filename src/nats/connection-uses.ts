/**
 * What is under way on connections, so that one that is left is not closed under it.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { pause } from "./backoff.js";

interface Uses {
  count: number;
  /** Told when the last one has ended. */
  onIdle: (() => void) | undefined;
}

/** See above. */
export class ConnectionUses {
  readonly #uses = new WeakMap<NatsConnection, Uses>();

  /** Something is under way on the connection. @returns what says that it has ended; to be called once */
  begin(connection: NatsConnection): () => void {
    let uses = this.#uses.get(connection);
    if (uses === undefined) this.#uses.set(connection, (uses = { count: 0, onIdle: undefined }));
    const counted = uses;
    counted.count += 1;
    return () => {
      counted.count -= 1;
      if (counted.count === 0) counted.onIdle?.();
    };
  }

  /** Resolves when nothing is under way on the connection, when it has ended, after `limitMs`, or with the signal. */
  async idle(connection: NatsConnection, limitMs: number, signal: AbortSignal): Promise<void> {
    const uses = this.#uses.get(connection);
    if (uses === undefined || uses.count === 0) return;
    const over = new AbortController();
    const onAbort = (): void => over.abort();
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    uses.onIdle = onAbort;
    void connection.closed().then(onAbort);
    await pause(limitMs, over.signal);
    uses.onIdle = undefined;
    signal.removeEventListener("abort", onAbort);
  }
}
