import type { DeliveryMode, Headers, OutgoingMessage, PayloadEncoding, SendOutcome } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import type { Receipt } from "./message.js";

/**
 * One send: the message as the channel knows it, and the promise that its caller waits for. One object, because there may
 * be very many of them at a time.
 */
export class Outgoing implements OutgoingMessage {
  readonly promise: Promise<Receipt>;
  payload: Uint8Array;
  encoding: PayloadEncoding | undefined = undefined;
  number = 0;
  offeredAt = 0;
  settled = false;
  private resolve!: (receipt: Receipt | PromiseLike<never>) => void;

  constructor(
    private readonly receipts: Receipts,
    readonly delivery: DeliveryMode,
    readonly topicKey: number,
    payload: Uint8Array,
    readonly headers: Headers | undefined,
  ) {
    this.payload = payload;
    this.promise = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  /** Ends the wait as the channel says. */
  settle(outcome: SendOutcome): void {
    if (outcome === "timed-out") this.keep();
    if (outcome === "timed-out" || outcome === "fenced" || outcome === "abandoned") {
      this.fail(failures[outcome](this.receipts.sent.peer));
    } else this.resolve(this.receipts[outcome]);
  }

  /** The caller waits no more, but the message is still to be sent: from here on its bytes are its own. */
  keep(): void {
    this.payload = this.payload.slice();
  }

  /** Ends the wait with an error. */
  fail(error: unknown): void {
    this.resolve(Promise.reject(error));
  }
}

const unknown = { outcome: "unknown" } as const;

const failures = {
  "timed-out": (peer: string) =>
    new PeerError(
      "store_failed",
      `the message for "${peer}" was neither acknowledged nor stored in time; it is still tried and may arrive`,
      unknown,
    ),
  fenced: (peer: string) =>
    new PeerError("name_lost", `the peer's name was lost before the message for "${peer}" was confirmed`, unknown),
  abandoned: (peer: string) =>
    new PeerError("store_failed", `the peer stopped before the message for "${peer}" was confirmed`, unknown),
};

/** A link's receipts, one for each outcome: shared by all its messages. */
export type Receipts = Readonly<Record<Receipt["outcome"], Receipt>>;

/** The receipts of sends to a listener. */
export function receiptsFor(peer: string): Receipts {
  const of = (outcome: Receipt["outcome"]): Receipt => Object.freeze({ outcome, peer });
  return { delivered: of("delivered"), stored: of("stored"), sent: of("sent"), dropped: of("dropped") };
}
