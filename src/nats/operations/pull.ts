/**
 * One pull from a consumer: the server is asked for some messages, and they come.
 *
 * Not by the library's own, which waits a second at least for messages that have been deleted meanwhile, and leaves
 * promises behind that nobody handles when the connection is drained.
 */
import { JetStreamStatus, jserrors } from "@nats-io/jetstream/internal";
import { createInbox, type Msg, type NatsConnection } from "@nats-io/transport-node";
import type { JetStreamSession } from "./jetstream-session.js";
import { handled } from "./within.js";

/** A message as its stream has it. */
export interface Delivered {
  readonly data: Uint8Array;
  /** Its number in the stream. */
  readonly seq: number;
  /** When it was stored, RFC 3339. */
  readonly storedAt: string;
}

/** A consumer that needs no acknowledgements, and how far it has been read. */
export interface Reading {
  readonly stream: string;
  readonly consumer: string;
  /** Messages that have come. */
  deliveries: number;
  /** The number of the last one in the stream. */
  lastSeq: number;
}

/** Messages got lost on their way. */
export class DeliveryGap extends Error {}

/** How long nothing may come before it is asked what is left: others may have deleted it meanwhile. */
const silenceMs = 500;

/**
 * Hands up to `batch` messages to `onMessage`, in their order.
 *
 * @param signal ends it early, with its reason
 * @returns how many are left after these
 * @throws DeliveryGap; what `onMessage` throws, and what the library does
 */
export async function pull(
  { connection, client, manager }: JetStreamSession,
  reading: Reading,
  batch: number,
  signal: AbortSignal,
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
    onMessage({ data: message.data, seq: at.seq, storedAt: at.storedAt });
    if (received === batch || at.left === 0) end(at.left);
  };
  let isOnItsWay = false;
  const look = async () => {
    const { delivered, num_pending: left, num_waiting: asked } = await manager.consumers.info(stream, consumer);
    if (delivered.consumer_seq > reading.deliveries) {
      if (isOnItsWay) throw new DeliveryGap();
      isOnItsWay = true;
      silence.refresh();
    } else if (left === 0 || asked === 0) end(left);
    else silence.refresh();
  };
  const silence = setTimeout(() => void look().catch(fail), silenceMs);
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
  const promise = handled(
    new Promise<number>((resolve, reject) => {
      end = resolve;
      fail = reject;
    }),
  );
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
function inboxPrefixOf(connection: NatsConnection): string | undefined {
  return (connection as unknown as { options?: { inboxPrefix?: string } }).options?.inboxPrefix;
}
