/**
 * Reads what a stream has for a subject, by a consumer that ends with the reading.
 *
 * It is read slice by slice, so that many who read at once take turns, and the server never has more under way to this
 * connection than the budget.
 */
import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream";
import { JetStreamStatus, jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type MsgHdrs, type NatsConnection, nanos, nuid } from "@nats-io/transport-node";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { Semaphore } from "../../runtime/index.js";
import type { JetStreamCall } from "./jetstream.js";

/** What is read. */
export interface Selection {
  readonly stream: string;
  readonly subject: string;
  readonly policy: DeliverPolicy;
  /** About how large one message is, in bytes. Once some have come, they tell. */
  readonly messageBytes: number;
  /** Leaves the payloads out. */
  readonly headersOnly?: boolean;
}

/** What is asked for at once: an eighth of the budget of a connection. */
const sliceBytes = 2 * 1024 * 1024;
const maxSliceMessages = 1_000;
/** Of a message beside its payload: subjects, headers. */
const overheadBytes = 256;
/** A consumer that could not be deleted. */
const inactiveMs = 5 * 60 * 1_000;

/**
 * Hands the messages that the stream has now to `onMessage`, in their order.
 *
 * @throws what `onMessage` throws, and what the library does
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

/** Reads all, or until messages get lost on their way; then from there on it has to be read again. */
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
    // It would stay for minutes otherwise.
    void manager.consumers.delete(stream, name).catch(() => undefined);
  }
}

/** A message as its stream has it. */
export interface Delivered {
  readonly subject: string;
  readonly headers: MsgHdrs | undefined;
  readonly data: Uint8Array;
  /** Its number in the stream. */
  readonly seq: number;
  /** When it was stored, RFC 3339. */
  readonly storedAt: string;
}

/** A consumer that needs no acknowledgements, and how far it has been read. */
interface Reading {
  readonly stream: string;
  readonly consumer: string;
  /** Messages that have come. */
  deliveries: number;
  /** The number of the last one in the stream. */
  lastSeq: number;
}

/** Messages got lost on their way. */
class DeliveryGap extends Error {}

/** How long nothing may come before it is asked what is left: others may have deleted it meanwhile. */
const silenceMs = 500;

/**
 * One pull from a consumer: asks the server for up to `batch` messages, and hands them to `onMessage`, in their order.
 *
 * Not by the library's own pull, which waits a second at least for messages that have been deleted meanwhile, and leaves
 * promises behind that nobody handles when the connection is drained.
 *
 * @returns how many are left after these
 * @throws DeliveryGap; what `onMessage` throws, and what the library does
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

/** How many are left, once it is known. */
function outcome() {
  let end!: (left: number) => void;
  let fail!: (error: unknown) => void;
  const promise = new Promise<number>((resolve, reject) => {
    end = resolve;
    fail = reject;
  });
  // It may fail before it is awaited.
  promise.catch(() => undefined);
  return { promise, end, fail };
}

/**
 * What the subject for its acknowledgement says of a message (ADR-15): `$JS.ACK`, in newer servers the domain and the
 * account, then stream, consumer, deliveries, number in the stream, number in the consumer, nanoseconds, how many are left.
 *
 * @throws JetStreamStatusError, JetStreamNotEnabled, if it is no message but a word of the server
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

/** Where the user may listen, if the connection was made for a place of its own. */
export function inboxPrefixOf(connection: NatsConnection): string | undefined {
  return (connection as unknown as { options?: { inboxPrefix?: string } }).options?.inboxPrefix;
}

/**
 * The bytes that downloads of one connection may have asked for and not received yet. First come, first served.
 *
 * A server keeps what a client has not read yet, and cuts a connection with more than 64 MiB of it (max_pending), with
 * all that others do over it. So all downloads of a connection share a budget, and ask for no more than it has.
 */
export class DownloadBudget {
  readonly #connection: NatsConnection;
  readonly #semaphore: Semaphore;

  /** @param maxBytes default: `maxDownloadBytes` of the spec */
  constructor(connection: NatsConnection, maxBytes: number = gatewayConstants.maxDownloadBytes) {
    this.#connection = connection;
    this.#semaphore = new Semaphore(maxBytes);
  }

  /**
   * Runs `work`, which makes the server send about that many bytes and resolves when they have come, as soon as there
   * is room for them. More than the whole budget counts as all of it.
   *
   * @param signal ends the waiting, with its reason
   * @throws what `work` throws
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

  /** Resolves when what was asked for has arrived, though its reader is gone: the answer to a PING comes behind it. */
  async #arrival(): Promise<void> {
    try {
      await this.#connection.flush();
    } catch {
      // The connection has ended, and the budget with it.
    }
  }
}
