/** Faults of a program: the effects of a crash on messages, on demand. */

/** Faults to apply to a program. */
export interface Faults {
  /** Handle every message twice, as with {@link twice}. Default false. */
  readonly twice?: boolean | undefined;
  /**
   * Kill the program with SIGKILL right after the peer handler with this number has ended, counted from 1, and before
   * Postgres records it: the message is delivered again. Default: never.
   */
  readonly killAfterHandler?: number | undefined;
}

/** Environment variable with the faults, read by the preload module. */
export const faultsVariable = "HAWSER_TEST_FAULTS";

/** Properties of a peer's message that the faults need. */
interface AttemptedMessage {
  readonly attempt: number;
  readonly delivery?: string;
}

/** Properties of a JetStream message of nats.js that the faults need. */
interface AcknowledgedMessage {
  readonly info: { readonly deliveryCount: number };
  ack(): void;
  nak(): void;
}

/** Thrown after a message was handled successfully, so that it is delivered again. */
class HandledTwice extends Error {
  static override readonly name = "HandledTwice";

  constructor() {
    super("the message was handled, and is delivered a second time because of twice() of hawser/testing");
  }
}

/**
 * Wraps a handler so that every message is delivered to it twice, as after a crash at the end of the first delivery.
 * Effects of the first delivery remain, unless they were part of the message's transaction, and the message is
 * redelivered in the usual way. The handler's own errors are unchanged.
 *
 * For handlers of a `Peer` (with `retry.attempts` of at least 2), for those of `consume` of `hawser/nats`, and for
 * functions that receive and acknowledge a JetStream message of nats.js: the first acknowledgement is lost. Requests
 * and at-most-once messages are delivered once.
 */
export function twice<Args extends readonly unknown[], Result>(
  handler: (...args: Args) => Result,
): (...args: Args) => Promise<Awaited<Result>> {
  return async (...args): Promise<Awaited<Result>> => {
    const message = args.at(-1);
    if (isOfJetStream(message) && args.length === 1) {
      if (message.info.deliveryCount > 1) return await handler(...args);
      return await handler(...([unacknowledged(message)] as unknown as Args));
    }
    const result = await handler(...args);
    if (comesAgain(message)) throw new HandledTwice();
    return result;
  };
}

function comesAgain(message: unknown): boolean {
  // Thrown after the handler, because Hawser acknowledges the message when the handler has succeeded.
  if (isOfJetStream(message)) return message.info.deliveryCount === 1;
  const { attempt, delivery } = (message ?? {}) as Partial<AttemptedMessage>;
  return attempt === 1 && delivery !== "at-most-once";
}

function isOfJetStream(message: unknown): message is AcknowledgedMessage {
  const { info, ack } = (message ?? {}) as Partial<AcknowledgedMessage>;
  return typeof ack === "function" && typeof info?.deliveryCount === "number";
}

/** Message that sends a negative acknowledgement instead of each acknowledgement. */
function unacknowledged(message: AcknowledgedMessage): AcknowledgedMessage {
  return new Proxy(message, {
    get(target, property) {
      if (property === "ack") return () => target.nak();
      if (property === "ackAck") {
        return async () => {
          target.nak();
          return true;
        };
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
