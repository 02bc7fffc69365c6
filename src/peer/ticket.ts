import type { SendOutcome } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import type { Receipt } from "./message.js";

/** The promise of one send. */
export class Ticket {
  readonly promise: Promise<Receipt>;
  private resolve!: (receipt: Receipt) => void;
  private reject!: (error: unknown) => void;

  constructor(readonly peer: string) {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }

  /** Ends the wait as the channel says. */
  settle(outcome: SendOutcome): void {
    if (outcome === "timed-out") {
      this.reject(
        new PeerError(
          "store_failed",
          `the message for "${this.peer}" was neither acknowledged nor stored in time; it is still tried and may arrive`,
          { outcome: "unknown" },
        ),
      );
    } else if (outcome === "fenced") {
      this.reject(
        new PeerError("name_lost", `the peer's name was lost before the message for "${this.peer}" was confirmed`, {
          outcome: "unknown",
        }),
      );
    } else if (outcome === "abandoned") {
      this.reject(
        new PeerError("store_failed", `the peer stopped before the message for "${this.peer}" was confirmed`, {
          outcome: "unknown",
        }),
      );
    } else this.resolve({ outcome, peer: this.peer });
  }

  /** Ends the wait early: the caller's signal, or the end of the peer. The message may still arrive. */
  fail(error: unknown): void {
    this.reject(error);
  }
}
