/**
 * JetStream for one call: its domain and its deadline, and what operations on buckets and stores share.
 *
 * The objects of the library cost no round trip, so each call makes its own, and nothing is kept that a stream deleted or
 * made again by others would break.
 */
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { Deadline } from "../../runtime/index.js";
import type { ConnectionWatch } from "./connection-watch.js";
import type { Attempt } from "./failure.js";

/** Where a bucket or an object store is, and how long a call may take. */
export interface StorageOptions {
  /** The JetStream domain; without one, that of the server. */
  readonly domain?: string | undefined;
  /** How long the whole call may take, in milliseconds. */
  readonly timeoutMs: number;
  /** How many servers keep a bucket or store that the call makes. Default: 1. */
  readonly replicas?: number | undefined;
}

/** Options of a call that reads what may be large. */
export interface ReadOptions extends StorageOptions {
  /** The largest content, or list, that is read, in bytes. */
  readonly maxBytes: number;
}

/** The parts of the library that a call uses. */
export interface JetStream {
  readonly connection: NatsConnection;
  readonly client: JetStreamClient;
  readonly manager: JetStreamManager;
}

/** A call that is under way. */
export interface JetStreamCall extends JetStream {
  readonly attempt: Attempt;
  readonly deadline: Deadline;
  /** Aborted with its error when the call fails: what it has begun stops. */
  readonly signal: AbortSignal;
}

/** The code of the JetStream API for a stream that others have made meanwhile, with other settings. */
const streamNameInUse = 10058;

export function attemptOf(name: string, { domain, replicas, timeoutMs }: StorageOptions, changes: boolean): Attempt {
  return { name, domain, replicas, changes, timeoutMs };
}

/** @param timeoutMs of each single request */
export async function jetStreamOf(
  connection: NatsConnection,
  domain: string | undefined,
  timeoutMs: number,
): Promise<JetStream> {
  const options = {
    // Asked for only where it is needed: it takes a round trip, and a right that the user may not have.
    checkAPI: false,
    timeout: timeoutMs,
  };
  // The library takes the domain out of the options that it is given.
  const named = () => (domain === undefined ? { ...options } : { ...options, domain });
  return { connection, client: jetstream(connection, named()), manager: await jetstreamManager(connection, named()) };
}

/** Carries out a call, as `ConnectionWatch.run` does. */
export async function runOnJetStream<T>(
  watch: ConnectionWatch,
  attempt: Attempt,
  work: (call: JetStreamCall) => Promise<T>,
): Promise<T> {
  watch.checkHeaders(attempt);
  const deadline = new Deadline(attempt.timeoutMs);
  const failed = new AbortController();
  try {
    return await watch.run(attempt, deadline, async () => {
      const jetStream = await jetStreamOf(watch.connection, attempt.domain, deadline.remainingMs);
      return work({ ...jetStream, attempt, deadline, signal: failed.signal });
    });
  } catch (error) {
    failed.abort(error);
    throw error;
  }
}

/** Somewhat less than what is left of a call's time, so that what came by then can still be told. */
export function lastChanceMs(deadline: Deadline): number {
  return Math.max(1, Math.floor(deadline.remainingMs * 0.9));
}

/** Waits until a bucket or store is made; one that is there stays as it is. */
export async function unlessThere(making: Promise<unknown>): Promise<void> {
  try {
    await making;
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === streamNameInUse)) throw error;
  }
}

/** Remembers names that were seen lately, and forgets the oldest once it is full. */
export class BoundedSet {
  readonly #items = new Set<string>();

  constructor(readonly maxItems: number) {}

  has(item: string): boolean {
    return this.#items.has(item);
  }

  add(item: string): void {
    this.#items.add(item);
    if (this.#items.size <= this.maxItems) return;
    for (const oldest of this.#items) {
      this.#items.delete(oldest);
      return;
    }
  }

  delete(item: string): void {
    this.#items.delete(item);
  }
}
