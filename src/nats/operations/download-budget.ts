/**
 * How much may be on its way from the server over one connection.
 *
 * A server keeps what a client has not read yet, and cuts a connection with more than 64 MiB of it (max_pending), with
 * all that others do over it. So all downloads of a connection share a budget, and ask for no more than it has.
 */
import type { NatsConnection } from "@nats-io/transport-node";

/** A quarter of what a server keeps by default. */
const defaultMaxBytes = 16 * 1024 * 1024;

interface Waiter {
  readonly bytes: number;
  granted(): void;
}

/** The bytes that downloads of one connection may have asked for and not received yet. First come, first served. */
export class DownloadBudget {
  readonly #connection: NatsConnection;
  /** In the order in which they came. */
  readonly #waiting = new Set<Waiter>();
  #free: number;

  /** @param maxBytes default: 16 MiB */
  constructor(
    connection: NatsConnection,
    readonly maxBytes: number = defaultMaxBytes,
  ) {
    this.#connection = connection;
    this.#free = maxBytes;
  }

  /**
   * Runs `work`, which makes the server send about that many bytes and resolves when they have come, as soon as there
   * is room for them. More than the whole budget counts as all of it.
   *
   * @param signal ends the waiting, with its reason
   * @throws what `work` throws
   */
  async spend<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const taken = Math.min(bytes, this.maxBytes);
    await this.#take(taken, signal);
    let whole = false;
    try {
      const result = await work();
      whole = true;
      return result;
    } finally {
      if (whole) this.#give(taken);
      else void this.#arrival().then(() => this.#give(taken));
    }
  }

  async #take(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#waiting.size === 0 && bytes <= this.#free) {
      this.#free -= bytes;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const aborted = () => {
        this.#waiting.delete(waiter);
        reject(signal.reason);
        this.#serve();
      };
      const waiter = {
        bytes,
        granted: () => {
          signal.removeEventListener("abort", aborted);
          resolve();
        },
      };
      signal.addEventListener("abort", aborted, { once: true });
      this.#waiting.add(waiter);
    });
  }

  #give(bytes: number): void {
    this.#free += bytes;
    this.#serve();
  }

  #serve(): void {
    for (const waiter of this.#waiting) {
      if (waiter.bytes > this.#free) return;
      this.#waiting.delete(waiter);
      this.#free -= waiter.bytes;
      waiter.granted();
    }
  }

  /** Of what nobody waits for any more and is on its way all the same: an answer to a PING comes behind it. */
  async #arrival(): Promise<void> {
    try {
      await this.#connection.flush();
    } catch {
      // The connection has ended, and the budget with it.
    }
  }
}
