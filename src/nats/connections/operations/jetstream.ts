/**
 * JetStream for one call: domain and deadline, and helpers that buckets and stores share.
 *
 * Creating the objects of nats.js costs no round trip, so each call creates its own. They are not kept, because they
 * would become wrong when others delete or recreate a stream.
 */
import {
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { Deadline } from "../../../foundation/runtime/index.js";
import type { ConnectionWatch } from "./connection-watch.js";
import type { OperationDescription } from "./failure.js";

/** Location of a bucket or object store, and limits of a call. */
export interface StorageOptions {
  /** JetStream domain. Default: that of the server. */
  readonly domain?: string | undefined;
  /** Time limit of the whole call, in milliseconds. */
  readonly timeoutMs: number;
  /** Replicas of a bucket or store that the call creates. Default: 1. */
  readonly replicas?: number | undefined;
}

/** Options of a call that may read much data. */
export interface ReadOptions extends StorageOptions {
  /** Maximum size of the content or list, in bytes. */
  readonly maxBytes: number;
}

/** Objects of nats.js that a call uses. */
export interface JetStream {
  readonly connection: NatsConnection;
  readonly client: JetStreamClient;
  readonly manager: JetStreamManager;
}

/** A running call. */
export interface JetStreamCall extends JetStream {
  readonly attempt: OperationDescription;
  readonly deadline: Deadline;
  /** Aborted with the call's error, so that its requests stop. */
  readonly signal: AbortSignal;
}

/** Error code of the JetStream API if a stream of that name exists, with other settings. */
const streamNameInUse = 10058;

export function attemptOf(
  name: string,
  { domain, replicas, timeoutMs }: StorageOptions,
  changes: boolean,
): OperationDescription {
  return { name, domain, replicas, changes, timeoutMs };
}

/** Creates the objects of nats.js, without a request. @param timeoutMs time limit of each later request */
export async function jetStreamOf(
  connection: NatsConnection,
  domain: string | undefined,
  timeoutMs: number,
): Promise<JetStream> {
  const options = {
    // The check costs a round trip, and needs a permission that the user may lack.
    checkAPI: false,
    timeout: timeoutMs,
  };
  // Each object gets a copy of the options, because nats.js removes the domain from those that it gets.
  const named = () => (domain === undefined ? { ...options } : { ...options, domain });
  return { connection, client: jetstream(connection, named()), manager: await jetstreamManager(connection, named()) };
}

/** Runs a call, as `ConnectionWatch.run` does. */
export async function runOnJetStream<T>(
  watch: ConnectionWatch,
  attempt: OperationDescription,
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

/** Nine tenths of the remaining time of a call, to leave time for reporting an error. */
export function almostRemainingMs(deadline: Deadline): number {
  return Math.max(1, Math.floor(deadline.remainingMs * 0.9));
}

/** Waits for the creation of a bucket or store. One that exists with other settings is no error, and is not changed. */
export async function unlessExists(creation: Promise<unknown>): Promise<void> {
  try {
    await creation;
  } catch (error) {
    if (!(error instanceof JetStreamApiError && error.code === streamNameInUse)) throw error;
  }
}

/** Set of recently added names, which forgets the oldest when it is full. */
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
