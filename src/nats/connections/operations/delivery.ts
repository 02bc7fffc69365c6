/**
 * Reads the messages that a stream has for a subject, through a temporary consumer.
 *
 * Messages are read in slices, so that concurrent readers take turns, and the bytes in transit to this connection never
 * exceed its budget.
 */
import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream";
import { JetStreamStatus, jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type NatsConnection, nanos, nuid } from "@nats-io/transport-node";
import { Semaphore } from "../../../foundation/runtime/index.js";
import { confirmed } from "../confirmed.js";
import type { JetStream } from "./jetstream.js";
import { inboxPrefixOf } from "./writer.js";

/**
 * Number of bytes that all downloads may have requested and not received yet: a quarter of the amount at which a NATS
 * server closes the connection by default (`max_pending`).
 */
const maxDownloadBytes = 16 * 1024 * 1024;

/** Messages to read. */
export interface Selection {
  readonly stream: string;
  readonly subject: string;
  /** Sequence number from which to read; or a policy, which selects from all messages. */
  readonly from: number | DeliverPolicy;
  /** Sequence number up to which to read. Default: the last that the stream has. */
  readonly last?: number;
  /** Estimated size of a message in bytes, until messages with payloads have arrived. */
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

/** Objects of nats.js that a read uses, and the signal that ends it. */
interface ReadCall extends JetStream {
  readonly signal: AbortSignal;
}

/**
 * Passes all messages that the stream has now to `onMessage`, in order.
 *
 * @throws errors of `onMessage` and nats.js; the reason of the signal
 */
export async function deliver(
  call: ReadCall,
  selection: Selection,
  onMessage: (message: Delivery) => void,
): Promise<void> {
  let from: Selection["from"] | undefined = selection.from;
  while (from !== undefined) {
    call.signal.throwIfAborted();
    from = await readFrom(from, call, selection, onMessage);
  }
}

/** Reads all messages. If messages were lost in transit, returns from where to read again. */
async function readFrom(
  from: Selection["from"],
  call: ReadCall,
  { stream, subject, last = Number.POSITIVE_INFINITY, messageBytes, headersOnly = false }: Selection,
  onMessage: (message: Delivery) => void,
): Promise<Selection["from"] | undefined> {
  const { connection, manager, signal } = call;
  const budget = DownloadBudget.of(connection);
  const { name, num_pending: pending } = await manager.consumers.add(stream, {
    name: nuid.next(),
    filter_subject: subject,
    ...(typeof from === "number"
      ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from }
      : { deliver_policy: from }),
    ack_policy: AckPolicy.None,
    headers_only: headersOnly,
    max_deliver: 1,
    mem_storage: true,
    num_replicas: 1,
    inactive_threshold: nanos(inactiveMs),
  });
  const reading: ConsumerRead = { stream, consumer: name, last, deliveries: 0, lastSeq: 0 };
  let largest = 0;
  const measured = (delivery: Delivery) => {
    largest = Math.max(largest, delivery.message.data.length);
    onMessage(delivery);
  };
  try {
    for (let left = pending; left > 0; ) {
      const each = (largest || messageBytes) + overheadBytes;
      const batch = Math.min(left, maxSliceMessages, Math.max(1, Math.floor(sliceBytes / each)));
      left = await budget.spend(batch * each, signal, () => pull(call, reading, batch, measured));
    }
    return undefined;
  } catch (error) {
    if (error instanceof DeliveryGap) return reading.lastSeq === 0 ? from : reading.lastSeq + 1;
    throw error;
  } finally {
    // A consumer that is not deleted would exist for minutes.
    void manager.consumers.delete(stream, name).catch(() => undefined);
  }
}

/** Message that a consumer delivered, with the values that its reply subject contains. */
export interface Delivery {
  readonly message: Msg;
  readonly reply: string;
  /** Sequence number in the stream. */
  readonly number: number;
  /** Position of this delivery in the sequence of all deliveries of the consumer. */
  readonly nth: number;
  /** Time at which the stream stored the message, in nanoseconds since 1970. */
  readonly at: bigint;
  /** Number of messages that the consumer had not delivered when it delivered this one. */
  readonly pending: number;
}

/**
 * Parses the reply subject of a delivered message (ADR-15):
 * `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, which may have a domain and an
 * account after `ACK`, and further tokens at its end.
 *
 * @param names `<stream>.<consumer>`
 * @returns undefined if the message is no delivery of this consumer
 */
export function parseDelivery(message: Msg, names: string): Delivery | undefined {
  const { reply = "" } = message;
  if (!reply.startsWith("$JS.ACK.")) return undefined;
  const dots: number[] = [];
  for (let dot = reply.indexOf("."); dot >= 0; dot = reply.indexOf(".", dot + 1)) dots.push(dot);
  if (dots.length < 8) return undefined;
  const first = dots.length === 8 ? 4 : 6;
  const word = (nth: number): string => reply.slice(dots[first + nth]! + 1, dots[first + nth + 1]);
  if (reply.slice(dots[first - 3]! + 1, dots[first - 1]) !== names) return undefined;
  return {
    message,
    reply,
    number: Number(word(0)),
    nth: Number(word(1)),
    at: BigInt(word(2)),
    pending: Number(word(3)),
  };
}

/** Time of a delivery in milliseconds since 1970. */
export function storedAtMs({ at }: Delivery): number {
  return Number(at / 1_000_000n);
}

/** A consumer without acknowledgements, and its progress. */
interface ConsumerRead {
  readonly stream: string;
  readonly consumer: string;
  /** Sequence number up to which to read. */
  readonly last: number;
  /** Number of messages that have arrived. */
  deliveries: number;
  /** Stream sequence number of the last message; 0 before the first. */
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
  { connection, client, manager, signal }: ReadCall,
  reading: ConsumerRead,
  batch: number,
  onMessage: (message: Delivery) => void,
): Promise<number> {
  signal.throwIfAborted();
  const { stream, consumer } = reading;
  const names = `${stream}.${consumer}`;
  const { promise, end, fail } = outcome();
  const aborted = () => fail(signal.reason);
  let received = 0;
  const take = (message: Msg) => {
    const delivery = parseDelivery(message, names);
    if (delivery === undefined) throw statusError(message);
    const { number, nth, pending } = delivery;
    if (nth !== reading.deliveries + 1) throw new DeliveryGap();
    reading.deliveries = nth;
    reading.lastSeq = number;
    received++;
    if (number <= reading.last) onMessage(delivery);
    const left = number >= reading.last ? 0 : pending;
    if (received === batch || left === 0) end(left);
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
    connection.publish(`${client.apiPrefix}.CONSUMER.MSG.NEXT.${names}`, JSON.stringify({ batch }), {
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

/** Error of a status message, which a server sends instead of a message. */
function statusError(message: Msg): Error {
  return message.headers?.code === 503
    ? new jserrors.JetStreamNotEnabled("no responders")
    : new JetStreamStatus(message).toError();
}

const budgets = new WeakMap<NatsConnection, DownloadBudget>();

/**
 * Budget of bytes that the downloads of a connection may have requested and not received yet. First come, first served.
 *
 * A server queues what a client has not read yet, and closes a connection with more than 64 MiB of it (max_pending),
 * together with all other operations over it.
 */
export class DownloadBudget {
  readonly #connection: NatsConnection;
  readonly #semaphore = new Semaphore(maxDownloadBytes);

  private constructor(connection: NatsConnection) {
    this.#connection = connection;
  }

  /** Budget that all downloads of a connection share. */
  static of(connection: NatsConnection): DownloadBudget {
    let budget = budgets.get(connection);
    if (budget === undefined) budgets.set(connection, (budget = new DownloadBudget(connection)));
    return budget;
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
      // The requested bytes arrive even if their reader has gone, and the server sends its PONG after them.
      else void confirmed(this.#connection).then(() => this.#semaphore.release(taken));
    }
  }
}
