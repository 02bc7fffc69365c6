/**
 * Typed messages of core NATS.
 */
import type { Msg, NatsConnection, Subscription as NatsSubscription } from "@nats-io/transport-node";
import { checkOptionNames, namesOf } from "../../foundation/errors/index.js";
import type { Subscription } from "../../foundation/runtime/index.js";
import { type FailureListener, handlersOf, type TypedHandlers } from "./handling.js";

/** Options of {@link subscribe}. */
export interface SubscribeOptions {
  /** Called with each message that could not be decoded or handled, and its error. Core NATS does not redeliver it. */
  readonly onFailure: FailureListener<Msg>;
  /** Queue group; each message goes to one of its members. Default: no group, every subscriber gets each message. */
  readonly queue?: string | undefined;
}

/**
 * Subscribes to the subject of one or several message types:
 *
 *     await subscribe(connection, typed(OrderPlacedSchema, async (order) => …), { queue: "billing", onFailure });
 *
 * Messages are handled one after another. `stop()` handles those that have already arrived.
 *
 * @throws HawserError (as a rejection) `invalid_schema`, `invalid_argument`; errors of nats.js
 */
export async function subscribe(
  connection: NatsConnection,
  handlers: TypedHandlers<Msg>,
  options: SubscribeOptions,
): Promise<Subscription> {
  checkOptionNames(options, "subscribe", namesOf<SubscribeOptions>({ onFailure: true, queue: true }));
  const { onFailure, queue } = options;
  const types = handlersOf(handlers);
  const subscription = connection.subscribe(types.pattern, queue === undefined ? {} : { queue });
  const closed = handleAll(subscription, types.run, onFailure);
  // Prevents an unhandled rejection if the caller does not use `closed`.
  closed.catch(() => undefined);
  const stop = async (): Promise<void> => {
    if (!subscription.isClosed()) await subscription.drain();
    await closed.catch(() => undefined);
  };
  // The answer of the server confirms the subscription: messages that are published from now on arrive.
  await connection.flush();
  return { topics: [types.pattern], stop, closed, [Symbol.asyncDispose]: stop };
}

async function handleAll(
  subscription: NatsSubscription,
  run: (message: Msg) => Promise<unknown>,
  onFailure: FailureListener<Msg>,
): Promise<void> {
  for await (const message of subscription) {
    try {
      await run(message);
    } catch (error) {
      onFailure(error, message);
    }
  }
}
