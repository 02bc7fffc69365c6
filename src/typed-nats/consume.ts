/**
 * Typed messages from a JetStream stream.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  JetStreamApiError,
  type JsMsg,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import { type NatsConnection, nanos } from "@nats-io/transport-node";
import { HawserError, namesOf } from "../errors/index.js";
import type { Subscription } from "../runtime/index.js";
import { type FailureListener, handlersOf, isFinal, type TypedHandlers } from "./handling.js";
import { checkOptionNames } from "./publish.js";

/** Options of {@link consume}. */
export interface ConsumeOptions {
  /** The stream. */
  readonly stream: string;
  /** The durable consumer. It is made if there is none, for the subject of the types; one that is there is used as it is. */
  readonly durable: string;
  /** Receives each message that could not be decoded or handled, with its error. */
  readonly onFailure: FailureListener<JsMsg>;
  /** After how long a message whose handler has failed comes again. Default 1,000. */
  readonly retryDelayMs?: number | undefined;
  /** How many messages are asked for ahead of the one that is handled. Default 16. */
  readonly prefetch?: number | undefined;
  /** More of a consumer that is made, as JetStream names it: `max_deliver`, `deliver_policy`, `ack_wait` in ns, …. */
  readonly config?: Partial<ConsumerConfig> | undefined;
  /** The JetStream domain. */
  readonly domain?: string | undefined;
}

const names = namesOf<ConsumeOptions>({
  stream: true,
  durable: true,
  onFailure: true,
  retryDelayMs: true,
  prefetch: true,
  config: true,
  domain: true,
});
const consumerNotFound = 10014;
const defaultAckWaitMs = 30_000;

/**
 * Handles the messages of a stream, one after the other: at least once. A message is acknowledged when its handler has
 * ended well. It comes again after `retryDelayMs` if the handler fails. It is terminated, so that it does not come again,
 * if it cannot be decoded, breaks a rule, or the handler throws a `Reject`. A handler may take longer than the consumer's
 * `ack_wait`: the server is told that it works. `stop()` waits for the running handler; messages that it had received and not
 * handled come again elsewhere. `closed` rejects if the subscription ends by itself, such as with the connection.
 *
 *     await consume(connection, typed(OrderPlacedSchema, async (order) => …), { stream: "ORDERS", durable: "billing", onFailure });
 *
 * @throws HawserError (as a rejection) `invalid_schema`, `invalid_argument`; the error of nats.js
 */
export async function consume(
  connection: NatsConnection,
  handlers: TypedHandlers<JsMsg>,
  options: ConsumeOptions,
): Promise<Subscription> {
  checkOptionNames(options, "consume", names);
  const { stream, durable, onFailure, retryDelayMs = 1_000, prefetch = 16, config, domain } = options;
  const types = handlersOf(handlers);
  const inDomain = domain === undefined ? {} : { domain };
  const manager = await jetstreamManager(connection, inDomain);
  const info = await manager.consumers.info(stream, durable).catch((error: unknown) => {
    if (!(error instanceof JetStreamApiError) || error.code !== consumerNotFound) throw error;
    return manager.consumers.add(stream, {
      ack_wait: nanos(defaultAckWaitMs),
      ...config,
      durable_name: durable,
      filter_subject: types.pattern,
      ack_policy: AckPolicy.Explicit,
    });
  });
  if (info.config.ack_policy !== AckPolicy.Explicit) {
    throw new HawserError(
      "invalid_argument",
      `durable "${durable}": the consumer has the ack policy ${info.config.ack_policy} and must have explicit; name another, or delete it`,
    );
  }
  const ackWaitMs = (info.config.ack_wait ?? nanos(defaultAckWaitMs)) / nanos(1);
  const consumer = await jetstream(connection, inDomain).consumers.get(stream, durable);
  const messages = await consumer.consume({ max_messages: prefetch });
  let stopping = false;
  const handleAll = async (): Promise<void> => {
    for await (const message of messages) {
      // What is left is given back, so that it does not wait for the end of ack_wait.
      if (stopping) message.nak();
      else await handleOne(message);
    }
    if (!stopping)
      throw new HawserError("internal", `the consumer "${durable}" of the stream "${stream}" has ended by itself`);
  };
  const handleOne = async (message: JsMsg): Promise<void> => {
    const working = setInterval(() => message.working(), ackWaitMs / 2);
    try {
      await types.run(message);
      message.ack();
    } catch (error) {
      if (isFinal(error)) message.term();
      else message.nak(retryDelayMs);
      onFailure(error, message);
    } finally {
      clearInterval(working);
    }
  };
  const closed = handleAll();
  // A rejection is for those who wait for `closed`.
  closed.catch(() => undefined);
  const stop = async (): Promise<void> => {
    stopping = true;
    messages.stop();
    await closed.catch(() => undefined);
  };
  return { topics: [types.pattern], stop, closed, [Symbol.asyncDispose]: stop };
}
