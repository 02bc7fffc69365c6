import { Delivery } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { SenderEffects, SenderLimits, SendOutcome } from "./effects.js";
import type { OutgoingMessage } from "./messages.js";
import { OfferQueue } from "./offer-queue.js";

type Limits = Pick<SenderLimits, "maxQueueMessages" | "maxQueueBytes" | "sendTimeoutMs">;

/**
 * The messages of a sender's channel that nobody has confirmed: how they are taken, and how they end.
 *
 * Numbered ones stay until they are confirmed. A send may end before that, because it has waited too long: then its outcome
 * is told once, and its message is kept, so that no number is missing.
 */
export class UnconfirmedMessages<Message extends OutgoingMessage> {
  /** Numbered messages that are not confirmed. */
  readonly numbered: OfferQueue<Message>;
  /** At-most-once messages that wait for the connection, with the number of {@link numbered} that they come after. */
  readonly unnumbered = new OfferQueue<Message>(0);
  /** Messages up to this number have their outcome already, though they may still be queued. */
  settledThrough = 0;

  readonly #limits: Limits;
  readonly #effects: Pick<SenderEffects<Message>, "settle">;

  /** @param lastNumber the number behind which the first message comes */
  constructor(limits: Limits, effects: Pick<SenderEffects<Message>, "settle">, lastNumber: number) {
    this.#limits = limits;
    this.#effects = effects;
    this.numbered = new OfferQueue(lastNumber);
  }

  /** How many there are. */
  get count(): number {
    return this.numbered.length + this.unnumbered.length;
  }

  /** Their payload bytes. */
  get bytes(): number {
    return this.numbered.bytes + this.unnumbered.bytes;
  }

  /** Takes a message. False when the queue is full (one message always fits). */
  offer(message: Message, now: number): boolean {
    const waiting = this.count;
    const size = message.payload.length;
    if (waiting >= this.#limits.maxQueueMessages && waiting > 0) return false;
    if (waiting > 0 && this.bytes + size > this.#limits.maxQueueBytes) return false;
    if (message.delivery === Delivery.AT_MOST_ONCE) this.unnumbered.push(message, now, this.numbered.last);
    else this.numbered.push(message, now);
    return true;
  }

  *[Symbol.iterator](): Iterator<Message> {
    for (const queue of [this.numbered, this.unnumbered]) {
      for (let number = queue.first; number <= queue.last; number++) yield queue.at(number) as Message;
    }
  }

  /** Numbered messages up to this one end so, and go. */
  confirmThrough(number: number, outcome: SendOutcome): void {
    const { numbered: queue } = this;
    const last = Math.min(number, queue.last);
    for (let next = Math.max(queue.first, this.settledThrough + 1); next <= last; next++) {
      this.#effects.settle(queue.at(next) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  /** At-most-once messages up to this one in their queue end so, and go. */
  settleUnnumbered(last: number, outcome: "sent" | "dropped"): void {
    const { unnumbered } = this;
    for (let number = unnumbered.first; number <= last; number++) {
      this.#effects.settle(unnumbered.at(number) as Message, outcome);
    }
    if (last >= unnumbered.first) unnumbered.drop(last);
  }

  settleAll(outcome: SendOutcome): void {
    this.confirmThrough(this.numbered.last, outcome);
    this.settleUnnumbered(this.unnumbered.last, "dropped");
  }

  /** Sends that have waited for a confirmation too long end, and their messages stay. */
  timeOut(now: number): void {
    const through = this.numbered.waitingSince(this.#limits.sendTimeoutMs, now);
    for (let number = Math.max(this.settledThrough + 1, this.numbered.first); number <= through; number++) {
      this.settledThrough = number;
      this.#effects.settle(this.numbered.at(number) as Message, "timed-out");
    }
  }

  /** Numbers begin anew with 1. */
  renumber(): void {
    this.settledThrough = Math.max(0, this.settledThrough - this.numbered.first + 1);
    this.numbered.renumber(1);
    this.unnumbered.renumber(1);
  }
}
