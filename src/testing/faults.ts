/**
 * Faults of a program: what a crash does to messages, on demand.
 */

/** Which faults a program has. */
export interface Faults {
  /** Every message is handled twice, as with {@link twice}. Default false. */
  readonly twice?: boolean | undefined;
  /**
   * The program is killed by SIGKILL right after that handler of a peer has ended, counted from 1, and before Postgres
   * has heard of it: the message comes again. Default: never.
   */
  readonly killAfterHandler?: number | undefined;
}

/** What the preload reads the faults from. */
export const faultsVariable = "HAWSER_TEST_FAULTS";

/** What is read of a message of a peer. */
interface AttemptedMessage {
  readonly attempt: number;
  readonly delivery?: string;
}

/** What is read of a message of JetStream, as nats.js has it. */
interface AcknowledgedMessage {
  readonly info: { readonly deliveryCount: number };
  ack(): void;
  nak(): void;
}

/** Thrown for a message that was handled well, so that it comes again. */
class HandledTwice extends Error {
  static override readonly name = "HandledTwice";

  constructor() {
    super("the message was handled, and comes a second time, as twice() of hawser/testing wants it");
  }
}

/**
 * A handler to which every message comes twice, as after a crash behind the first time: what it did the first time is done,
 * unless it did it in the message's transaction, and the message comes again in the usual way. Its own errors stay what they
 * are.
 *
 * For handlers of a `Peer` (with `retry.attempts` of at least 2), for those of `consume` of `hawser/nats`, and for functions
 * that take a message of JetStream as nats.js has it and acknowledge it: the first acknowledgement is lost. Requests and
 * at-most-once messages come once.
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
  // Behind its value: Hawser acknowledges it when the handler has ended well.
  if (isOfJetStream(message)) return message.info.deliveryCount === 1;
  const { attempt, delivery } = (message ?? {}) as Partial<AttemptedMessage>;
  return attempt === 1 && delivery !== "at-most-once";
}

function isOfJetStream(message: unknown): message is AcknowledgedMessage {
  const { info, ack } = (message ?? {}) as Partial<AcknowledgedMessage>;
  return typeof ack === "function" && typeof info?.deliveryCount === "number";
}

/** The message, with acknowledgements that say the opposite. */
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
