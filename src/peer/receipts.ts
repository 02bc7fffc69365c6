import type { SendOutcome } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import type { Receipt } from "./message.js";

/** A link's receipts, one for each outcome: shared by all its messages. */
export type Receipts = Readonly<Record<Receipt["outcome"], Receipt>>;

/** The receipts of sends to a listener. */
export function receiptsFor(peer: string): Receipts {
  const of = (outcome: Receipt["outcome"]): Receipt => Object.freeze({ outcome, peer });
  return { delivered: of("delivered"), stored: of("stored"), sent: of("sent"), dropped: of("dropped") };
}

/** Whether a send that ended so has failed. */
export function isFailure(outcome: SendOutcome): outcome is keyof typeof failures {
  return outcome === "timed-out" || outcome === "fenced" || outcome === "abandoned";
}

/** The error of a send that has failed. */
export function failureOf(outcome: keyof typeof failures, { sent: { peer } }: Receipts): PeerError {
  return failures[outcome](peer);
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
