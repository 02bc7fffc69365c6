/**
 * Typed messages of core NATS.
 */
import type { Msg, NatsConnection, Subscription as NatsSubscription } from "@nats-io/transport-node";
import { namesOf } from "../errors/index.js";
import type { Subscription } from "../runtime/index.js";
import { type FailureListener, handlersOf, type TypedHandlers } from "./handling.js";
import { checkOptionNames } from "./publish.js";

/** Options of {@link subscribe}. */
export interface SubscribeOptions {
  /** Receives each message that could not be decoded or handled, with its error: core NATS does not send it again. */
  readonly onFailure: FailureListener<Msg>;
  /** The queue group: of its members one gets each message. */
  readonly queue?: string | undefined;
}

/**
 * Subscribes to the subject of a type, or of several that have the same one:
 *
 *     await subscribe(connection, typed(OrderPlacedSchema, async (order) => …), { queue: "billing", onFailure });
 *
 * Messages are handled one after the other. `stop()` handles those that have arrived.
 *
 * @throws HawserError (as a rejection) `invalid_schema`, `invalid_argument`; the error of nats.js
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
  // A rejection is for those who wait for `closed`.
  closed.catch(() => undefined);
  const stop = async (): Promise<void> => {
    if (!subscription.isClosed()) await subscription.drain();
    await closed.catch(() => undefined);
  };
  // The server has the subscription when it answers: a message published from now on arrives.
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
