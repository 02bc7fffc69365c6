/**
 * Reads what a stream has for a subject, by an ordered consumer that ends with the reading.
 */
import type { DeliverPolicy, JsMsg } from "@nats-io/jetstream";
import type { JetStreamSession } from "./jetstream-session.js";

/** What is read. */
export interface Selection {
  readonly stream: string;
  readonly subject: string;
  readonly policy: DeliverPolicy;
}

/** How long nothing may come before it is asked what is left: others may have deleted it meanwhile. */
const silenceMs = 500;

/**
 * Hands the messages that the stream has now to `onMessage`, in their order.
 *
 * @param signal ends the reading early, with its reason
 * @throws what `onMessage` throws, and what the library does
 */
export async function deliver(
  { client, manager }: JetStreamSession,
  { stream, subject, policy }: Selection,
  signal: AbortSignal,
  onMessage: (message: JsMsg) => void,
): Promise<void> {
  const consumer = await client.consumers.getPushConsumer(stream, { filter_subjects: subject, deliver_policy: policy });
  try {
    const { num_pending: pending } = await consumer.info(true);
    if (pending === 0) return;
    let end!: (failure?: { readonly error: unknown }) => void;
    const ended = new Promise<void>((resolve, reject) => {
      end = (failure) => (failure === undefined ? resolve() : reject(failure.error));
    });
    const silence = setTimeout(async () => {
      try {
        const { num_pending: left } = await consumer.info();
        if (left === 0) end();
        else silence.refresh();
      } catch (error) {
        end({ error });
      }
    }, silenceMs);
    const aborted = () => end({ error: signal.reason });
    signal.addEventListener("abort", aborted);
    if (signal.aborted) aborted();
    const messages = await consumer.consume({
      callback: (message) => {
        silence.refresh();
        try {
          onMessage(message);
          if (message.info.pending === 0) end();
        } catch (error) {
          end({ error });
        }
      },
    });
    try {
      await ended;
    } finally {
      clearTimeout(silence);
      signal.removeEventListener("abort", aborted);
      messages.stop();
    }
  } finally {
    // It would stay for minutes otherwise. Its name changes when messages got lost on their way.
    void consumer
      .info(true)
      .then(({ name }) => manager.consumers.delete(stream, name))
      .catch(() => undefined);
  }
}
