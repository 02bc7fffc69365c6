/**
 * Reads what a stream has for a subject, by a consumer that ends with the reading.
 *
 * It is read slice by slice, so that many who read at once take turns, and the server never has more under way to this
 * connection than the budget.
 */
import { AckPolicy, DeliverPolicy } from "@nats-io/jetstream";
import { nanos, nuid } from "@nats-io/transport-node";
import type { DownloadBudget } from "./download-budget.js";
import type { JetStreamSession } from "./jetstream-session.js";
import { type Delivered, DeliveryGap, pull, type Reading } from "./pull.js";

/** What is read. */
export interface Selection {
  readonly stream: string;
  readonly subject: string;
  readonly policy: DeliverPolicy;
  /** About how large one message is, in bytes. Once some have come, they tell. */
  readonly messageBytes: number;
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
 * @param signal ends the reading early, with its reason
 * @throws what `onMessage` throws, and what the library does
 */
export async function deliver(
  session: JetStreamSession,
  budget: DownloadBudget,
  selection: Selection,
  signal: AbortSignal,
  onMessage: (message: Delivered) => void,
): Promise<void> {
  let from: number | undefined = 0;
  while (from !== undefined) {
    signal.throwIfAborted();
    from = await readFrom(from, session, budget, selection, signal, onMessage);
  }
}

/** Reads all, or until messages get lost on their way; then from there on it has to be read again. */
async function readFrom(
  from: number,
  session: JetStreamSession,
  budget: DownloadBudget,
  { stream, subject, policy, messageBytes }: Selection,
  signal: AbortSignal,
  onMessage: (message: Delivered) => void,
): Promise<number | undefined> {
  const { manager } = session;
  const { name, num_pending: pending } = await manager.consumers.add(stream, {
    name: nuid.next(),
    filter_subject: subject,
    ...(from === 0 ? { deliver_policy: policy } : { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from }),
    ack_policy: AckPolicy.None,
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
      left = await budget.spend(batch * each, signal, () => pull(session, reading, batch, signal, measured));
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
