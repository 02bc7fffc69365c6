/**
 * Typed messages of core NATS.
 */
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import { namesOf } from "../errors/index.js";
import { type FailureListener, type Handlings, handlersOf } from "./handling.js";
import { checkOptionNames } from "./publish.js";

/** How to subscribe. */
export interface SubscribeOptions {
  /** Hears of what could not be decoded or handled. Core NATS does not send a message again, and nobody else is told. */
  readonly onFailure: FailureListener<Msg>;
  /** The queue group: of its members one gets each message. */
  readonly queue?: string | undefined;
}

/** A subscription. */
export interface TypedSubscription extends AsyncDisposable {
  /** The subject, with `*` for each field in it. */
  readonly subject: string;
  /** Ends it: what has come is handled, then the promise resolves. */
  drain(): Promise<void>;
  /** Resolves when it has ended, whichever way. */
  readonly closed: Promise<void>;
}

/**
 * Subscribes to the subject of a type, or of several that have the same one:
 *
 *     subscribe(connection, handle(OrderPlacedSchema, async (order) => …), { queue: "billing", onFailure });
 *
 * Messages are handled one after the other.
 *
 * @throws HawserError `invalid_schema`, `invalid_argument`
 */
export function subscribe(
  connection: NatsConnection,
  handlings: Handlings<Msg>,
  options: SubscribeOptions,
): TypedSubscription {
  checkOptionNames(options, "subscribe", namesOf<SubscribeOptions>({ onFailure: true, queue: true }));
  const { onFailure, queue } = options;
  const handlers = handlersOf(handlings);
  const subscription = connection.subscribe(handlers.pattern, queue === undefined ? {} : { queue });
  const closed = handleAll(subscription, handlers.run, onFailure);
  const drain = async (): Promise<void> => {
    if (!subscription.isClosed()) await subscription.drain();
    await closed;
  };
  return { subject: handlers.pattern, drain, closed, [Symbol.asyncDispose]: drain };
}

async function handleAll(
  subscription: Subscription,
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
