/**
 * Typed messages from a JetStream stream.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  JetStreamApiCodes,
  JetStreamApiError,
  type JsMsg,
  jetstream,
  jetstreamManager,
} from "@nats-io/jetstream";
import { type NatsConnection, nanos } from "@nats-io/transport-node";
import { checkOptionNames, HawserError, invalidArgument, namesOf, RetryAfter } from "../../foundation/errors/index.js";
import type { Subscription } from "../../foundation/runtime/index.js";
import { type FailureListener, handlersOf, isFinal, type TypedHandlers } from "./handling.js";

/** Options of {@link consume}. */
export interface ConsumeOptions {
  /** Name of the stream. */
  readonly stream: string;
  /**
   * Name of the durable consumer. If it does not exist, it is created for the subject of the types; an existing
   * consumer is used unchanged.
   */
  readonly durable: string;
  /** Called with each message that could not be decoded or handled, and its error. */
  readonly onFailure: FailureListener<JsMsg>;
  /** Delay before the redelivery of a message whose handler failed, in milliseconds. Default: 1,000. */
  readonly retryDelayMs?: number | undefined;
  /** Number of messages to fetch ahead of the running handler. Default: 16. */
  readonly prefetch?: number | undefined;
  /**
   * Further settings for a consumer that is created, with their JetStream names: `max_deliver`, `ack_wait` in ns, ….
   */
  readonly config?: Partial<ConsumerConfig> | undefined;
  /** JetStream domain of the stream. Default: the domain of the server. */
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
const defaultAckWaitMs = 30_000;

/**
 * Handles the messages of a stream at least once, one after another.
 *
 * A message is acknowledged after its handler has completed. If the handler fails, the message is redelivered after
 * `retryDelayMs`, or at the time of a `RetryAfter`; JetStream counts each delivery. A message is terminated, so that it
 * is not redelivered, if it cannot be decoded, if it breaks a rule, or if the handler throws a `Reject`. A handler may
 * run longer than the consumer's `ack_wait`, because the server gets regular progress reports.
 *
 * `stop()` waits for the running handler; messages that were fetched but not handled are redelivered to another
 * process. `closed` rejects if the subscription ends by itself, for example with the connection.
 *
 *     await consume(connection, typed(OrderPlacedSchema, async (order) => …), { stream: "ORDERS", durable: "billing", onFailure });
 *
 * @throws HawserError (as a rejection) `invalid_schema`, `invalid_argument`; errors of nats.js
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
    if (!(error instanceof JetStreamApiError) || error.code !== JetStreamApiCodes.ConsumerNotFound) throw error;
    return manager.consumers.add(stream, {
      ack_wait: nanos(defaultAckWaitMs),
      ...config,
      durable_name: durable,
      filter_subject: types.pattern,
      ack_policy: AckPolicy.Explicit,
    });
  });
  if (info.config.ack_policy !== AckPolicy.Explicit) {
    throw invalidArgument(
      `durable "${durable}": the consumer has the ack policy ${info.config.ack_policy}; it must be explicit. Name another consumer, or delete this one`,
    );
  }
  const ackWaitMs = (info.config.ack_wait ?? nanos(defaultAckWaitMs)) / nanos(1);
  const consumer = await jetstream(connection, inDomain).consumers.get(stream, durable);
  const messages = await consumer.consume({ max_messages: prefetch });
  let stopping = false;
  const handleAll = async (): Promise<void> => {
    for await (const message of messages) {
      // Returns the prefetched messages, so that they do not wait for the end of `ack_wait`.
      if (stopping) message.nak();
      else await handleOne(message);
    }
    if (!stopping)
      throw new HawserError("internal", `the consumer "${durable}" of the stream "${stream}" has ended unexpectedly`);
  };
  const handleOne = async (message: JsMsg): Promise<void> => {
    const working = setInterval(() => message.working(), ackWaitMs / 2);
    try {
      await types.run(message);
      message.ack();
    } catch (error) {
      if (isFinal(error)) message.term();
      else message.nak(error instanceof RetryAfter ? Math.max(0, error.retryAt.getTime() - Date.now()) : retryDelayMs);
      onFailure(error, message);
    } finally {
      clearInterval(working);
    }
  };
  const closed = handleAll();
  // Prevents an unhandled rejection if the caller does not use `closed`.
  closed.catch(() => undefined);
  const stop = async (): Promise<void> => {
    stopping = true;
    messages.stop();
    await closed.catch(() => undefined);
  };
  return { topics: [types.pattern], stop, closed, [Symbol.asyncDispose]: stop };
}
