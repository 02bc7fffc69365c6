/**
 * Reads the messages that a stream has for a subject, through a temporary consumer.
 *
 * Messages are read in slices, so that concurrent readers take turns, and the bytes in transit to this connection never
 * exceed its budget.
 */
import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream";
import { JetStreamStatus, jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type MsgHdrs, type NatsConnection, nanos, nuid } from "@nats-io/transport-node";
import { Semaphore } from "../../runtime/index.js";
import type { JetStreamCall } from "./jetstream.js";

/**
 * Number of bytes that all downloads may have requested and not received yet: a quarter of the amount at which a NATS
 * server closes the connection by default (`max_pending`).
 */
const maxDownloadBytes = 16 * 1024 * 1024;

/** Messages to read. */
export interface Selection {
  readonly stream: string;
  readonly subject: string;
  readonly policy: DeliverPolicy;
  /** Estimated size of a message in bytes, until messages have arrived. */
  readonly messageBytes: number;
  /** True to omit payloads. */
  readonly headersOnly?: boolean;
}

/** Bytes of one request: an eighth of a connection's budget. */
const sliceBytes = 2 * 1024 * 1024;
const maxSliceMessages = 1_000;
/** Size of a message besides its payload: subjects, headers. */
const overheadBytes = 256;
/** Time after which the server removes a consumer that could not be deleted. */
const inactiveMs = 5 * 60 * 1_000;

/**
 * Passes all messages that the stream has now to `onMessage`, in order.
 *
 * @throws errors of `onMessage` and nats.js
 */
export async function deliver(
  call: JetStreamCall,
  budget: DownloadBudget,
  selection: Selection,
  onMessage: (message: Delivered) => void,
): Promise<void> {
  let from: number | undefined = 0;
  while (from !== undefined) {
    call.signal.throwIfAborted();
    from = await readFrom(from, call, budget, selection, onMessage);
  }
}

/** Reads all messages. If messages were lost in transit, returns the sequence number from which to read again. */
async function readFrom(
  from: number,
  call: JetStreamCall,
  budget: DownloadBudget,
  { stream, subject, policy, messageBytes, headersOnly = false }: Selection,
  onMessage: (message: Delivered) => void,
): Promise<number | undefined> {
  const { manager, signal } = call;
  const { name, num_pending: pending } = await manager.consumers.add(stream, {
    name: nuid.next(),
    filter_subject: subject,
    ...(from === 0 ? { deliver_policy: policy } : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from }),
    ack_policy: AckPolicy.None,
    headers_only: headersOnly,
    max_deliver: 1,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(inactiveMs),
  });
  const reading: Reading = { stream, consumer: name, deliveries: 0, lastSeq: 0 };
  let largest = 0;
  const measured = (message: Delivered) => {
    largest = Math.max(largest, message.data.length);
    onMessage(message);
  };
  try {
    for (let left = pending; left > 0; ) {
      const each = (largest || messageBytes) + overheadBytes;
      const batch = Math.min(left, maxSliceMessages, Math.max(1, Math.floor(sliceBytes / each)));
      left = await budget.spend(batch * each, signal, () => pull(call, reading, batch, measured));
    }
    return undefined;
  } catch (error) {
    if (error instanceof DeliveryGap) return Math.max(reading.lastSeq + 1, from);
    throw error;
  } finally {
    // A consumer that is not deleted would exist for minutes.
    void manager.consumers.delete(stream, name).catch(() => undefined);
  }
}

/** A message as its stream stores it. */
export interface Delivered {
  readonly subject: string;
  readonly headers: MsgHdrs | undefined;
  readonly data: Uint8Array;
  /** Sequence number in the stream. */
  readonly seq: number;
  /** Time of storage, RFC 3339. */
  readonly storedAt: string;
}

/** A consumer without acknowledgements, and its progress. */
interface Reading {
  readonly stream: string;
  readonly consumer: string;
  /** Number of messages that have arrived. */
  deliveries: number;
  /** Stream sequence number of the last message. */
  lastSeq: number;
}

/** Thrown if messages were lost in transit. */
class DeliveryGap extends Error {}

/**
 * Time without a message after which the state of the consumer is read: the remaining messages may have been deleted.
 */
const silenceMs = 500;

/**
 * Pulls up to `batch` messages from a consumer, and passes them to `onMessage`, in order.
 *
 * The pull of nats.js is not used, because it waits at least a second for messages that were deleted meanwhile, and
 * leaves unhandled rejections when the connection drains.
 *
 * @returns the number of remaining messages
 * @throws DeliveryGap; errors of `onMessage` and nats.js
 */
async function pull(
  { connection, client, manager, signal }: JetStreamCall,
  reading: Reading,
  batch: number,
  onMessage: (message: Delivered) => void,
): Promise<number> {
  signal.throwIfAborted();
  const { stream, consumer } = reading;
  const { promise, end, fail } = outcome();
  const aborted = () => fail(signal.reason);
  let received = 0;
  const take = (message: Msg) => {
    const at = deliveryOf(message);
    if (at.delivery !== reading.deliveries + 1) throw new DeliveryGap();
    reading.deliveries = at.delivery;
    reading.lastSeq = at.seq;
    received++;
    const { subject, headers, data } = message;
    onMessage({ subject, headers, data, seq: at.seq, storedAt: at.storedAt });
    if (received === batch || at.left === 0) end(at.left);
  };
  let isOnItsWay = false;
  const check = async () => {
    const { delivered, num_pending: left, num_waiting: asked } = await manager.consumers.info(stream, consumer);
    if (delivered.consumer_seq > reading.deliveries) {
      if (isOnItsWay) throw new DeliveryGap();
      isOnItsWay = true;
      silence.refresh();
    } else if (left === 0 || asked === 0) end(left);
    else silence.refresh();
  };
  const silence = setTimeout(() => void check().catch(fail), silenceMs);
  const inbox = createInbox(inboxPrefixOf(connection));
  let unsubscribe: (() => void) | undefined;
  signal.addEventListener("abort", aborted);
  try {
    const subscription = connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error) return fail(error);
        isOnItsWay = false;
        silence.refresh();
        try {
          take(message);
        } catch (failure) {
          fail(failure);
        }
      },
    });
    unsubscribe = () => subscription.unsubscribe();
    connection.publish(`${client.apiPrefix}.CONSUMER.MSG.NEXT.${stream}.${consumer}`, JSON.stringify({ batch }), {
      reply: inbox,
    });
    return await promise;
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", aborted);
    unsubscribe?.();
  }
}

/** Promise of the number of remaining messages. */
function outcome() {
  let end!: (left: number) => void;
  let fail!: (error: unknown) => void;
  const promise = new Promise<number>((resolve, reject) => {
    end = resolve;
    fail = reject;
  });
  // The promise may reject before it is awaited.
  promise.catch(() => undefined);
  return { promise, end, fail };
}

/**
 * Parses the reply subject of a message (ADR-15): `$JS.ACK`, in newer servers domain and account, then stream,
 * consumer, deliveries, stream sequence, consumer sequence, nanoseconds, remaining messages.
 *
 * @throws JetStreamStatusError, JetStreamNotEnabled, if the message is a status of the server
 */
function deliveryOf(message: Msg) {
  const tokens = (message.reply ?? "").split(".");
  if (tokens[0] !== "$JS" || tokens[1] !== "ACK" || tokens.length < 9) {
    if (message.headers?.code === 503) throw new jserrors.JetStreamNotEnabled("no responders");
    throw new JetStreamStatus(message).toError();
  }
  const [seq, delivery, nanoseconds, left] = tokens.slice(tokens.length === 9 ? 5 : 7).map(Number);
  return {
    seq: seq!,
    delivery: delivery!,
    storedAt: new Date(nanoseconds! / 1e6).toISOString(),
    left: left!,
  };
}

/** Inbox prefix that the connection's user may subscribe to, if the connection has its own. */
export function inboxPrefixOf(connection: NatsConnection): string | undefined {
  return (connection as unknown as { options?: { inboxPrefix?: string } }).options?.inboxPrefix;
}

/**
 * Budget of bytes that the downloads of a connection may have requested and not received yet. First come, first served.
 *
 * A server queues what a client has not read yet, and closes a connection with more than 64 MiB of it (max_pending),
 * together with all other operations over it.
 */
export class DownloadBudget {
  readonly #connection: NatsConnection;
  readonly #semaphore: Semaphore;

  /** @param maxBytes default: `maxDownloadBytes` */
  constructor(connection: NatsConnection, maxBytes: number = maxDownloadBytes) {
    this.#connection = connection;
    this.#semaphore = new Semaphore(maxBytes);
  }

  /**
   * Runs `work` as soon as the budget permits. `work` makes the server send about `bytes` bytes, and resolves when they
   * have arrived. If `bytes` exceeds the budget, it takes the whole budget.
   *
   * @param signal ends the wait, with its reason
   * @throws errors of `work`
   */
  async spend<T>(bytes: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const taken = Math.min(bytes, this.#semaphore.limit);
    await this.#semaphore.acquire(taken, signal);
    let whole = false;
    try {
      const result = await work();
      whole = true;
      return result;
    } finally {
      if (whole) this.#semaphore.release(taken);
      else void this.#arrival().then(() => this.#semaphore.release(taken));
    }
  }

  /**
   * Resolves when the requested bytes have arrived, even if their reader has gone: the server sends its PONG after
   * them.
   */
  async #arrival(): Promise<void> {
    try {
      await this.#connection.flush();
    } catch {
      // The connection has closed, and its budget is no longer used.
    }
  }
}
