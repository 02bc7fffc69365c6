import { OfferQueue } from "./offer-queue.js";
import type { OutgoingMessage, SenderEffects, SenderLimits, SendOutcome } from "./sender-types.js";

/**
 * The messages of a sender's channel that nobody has confirmed: how they are taken, and how they end.
 *
 * Numbered ones stay until they are confirmed. A send may end before that, because it has waited too long: then its outcome
 * is told once, and its message is kept, so that no number is missing.
 */
export abstract class UnconfirmedMessages<Message extends OutgoingMessage> {
  protected readonly limits: SenderLimits;
  protected readonly effects: SenderEffects<Message>;
  /** Numbered messages that are not confirmed. */
  protected readonly queue: OfferQueue<Message>;
  /** Messages up to this number have their outcome already, though they may still be queued. */
  protected settledThrough = 0;
  /** At-most-once messages that wait for the connection, with the number of {@link queue} that they come after. */
  protected readonly unnumbered = new OfferQueue<Message>(0);

  /** @param lastNumber the number behind which the first message comes */
  constructor(limits: SenderLimits, effects: SenderEffects<Message>, lastNumber: number) {
    this.limits = limits;
    this.effects = effects;
    this.queue = new OfferQueue(lastNumber);
  }

  /** The number of the newest numbered message. */
  get lastNumber(): number {
    return this.queue.last;
  }

  /** Messages that wait for a confirmation or for the connection. */
  get pendingMessages(): number {
    return this.queue.length + this.unnumbered.length;
  }

  /** Their payload bytes. */
  get pendingBytes(): number {
    return this.queue.bytes + this.unnumbered.bytes;
  }

  /**
   * Takes a message; call `flush` before the tick ends. False when the queue is full (one message always fits).
   *
   * @param now in ms. Where it is the same for many messages in a row, they take less memory
   */
  offer(message: Message, now: number): boolean {
    const pending = this.pendingMessages;
    const size = message.payload.length;
    if (pending >= this.limits.maxQueueMessages && pending > 0) return false;
    if (pending > 0 && this.pendingBytes + size > this.limits.maxQueueBytes) return false;
    if (message.delivery === "at-most-once") this.unnumbered.push(message, now, this.queue.last);
    else this.queue.push(message, now);
    return true;
  }

  /** All of them. */
  *unconfirmed(): Iterable<Message> {
    for (const queue of [this.queue, this.unnumbered]) {
      for (let number = queue.first; number <= queue.last; number++) yield queue.at(number) as Message;
    }
  }

  /** Numbered messages up to this one end so, and go. */
  protected confirmThrough(number: number, outcome: SendOutcome): void {
    const { queue } = this;
    const last = Math.min(number, queue.last);
    for (let next = Math.max(queue.first, this.settledThrough + 1); next <= last; next++) {
      this.effects.settle(queue.at(next) as Message, outcome);
    }
    if (last >= queue.first) queue.drop(last);
  }

  /** At-most-once messages up to this one in their queue end so, and go. */
  protected settleUnnumbered(last: number, outcome: "sent" | "dropped"): void {
    const { unnumbered } = this;
    for (let number = unnumbered.first; number <= last; number++) {
      this.effects.settle(unnumbered.at(number) as Message, outcome);
    }
    if (last >= unnumbered.first) unnumbered.drop(last);
  }

  protected settleAll(outcome: SendOutcome): void {
    this.confirmThrough(this.queue.last, outcome);
    this.settleUnnumbered(this.unnumbered.last, "dropped");
  }

  /** Sends that have waited for a confirmation too long end, and their messages stay. */
  protected timeOut(now: number): void {
    const through = this.queue.waitingSince(this.limits.sendTimeoutMs, now);
    for (let number = Math.max(this.settledThrough + 1, this.queue.first); number <= through; number++) {
      this.settledThrough = number;
      this.effects.settle(this.queue.at(number) as Message, "timed-out");
    }
  }

  /** Numbers begin anew with 1. */
  protected renumber(): void {
    this.settledThrough = Math.max(0, this.settledThrough - this.queue.first + 1);
    this.queue.renumber(1);
    this.unnumbered.renumber(1);
  }
}
