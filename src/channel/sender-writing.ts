import { numberedBatch, unnumberedBatch } from "./batches.js";
import { FlightWindow } from "./flight-window.js";
import type { LinkState, OutgoingMessage } from "./sender-types.js";
import { UnconfirmedMessages } from "./unconfirmed-messages.js";

/** What goes to a channel's connection, and when. */
export abstract class SenderWriting<Message extends OutgoingMessage> extends UnconfirmedMessages<Message> {
  protected state: LinkState = "connecting";
  /** Identity of the present connection; events that name another one do nothing. */
  protected connection: unknown;
  protected dialling = false;
  protected writable = true;
  protected stopping = false;

  protected acked = 0;
  protected stored = 0;
  protected written = 0;
  protected readonly window = new FlightWindow();

  /** Everything up to here is acknowledged or stored. */
  protected confirmed(): number {
    return Math.max(this.acked, this.stored);
  }

  /** Writes to the connection, in the order of the offers while the channel is live, as far as credit goes. */
  protected write(): void {
    if (this.connection === undefined) return;
    const numbered = this.state === "live" || this.state === "going-live";
    while (this.writable) {
      // What the store has is not written; the listener finds it there.
      this.written = Math.max(this.written, this.confirmed());
      const after = this.unnumbered.firstAfter;
      if (this.unnumbered.length > 0 && (this.state !== "live" || after <= this.written)) this.#writeUnnumbered();
      else if (!numbered || !this.#writeNumbered(after)) return;
    }
  }

  #writeUnnumbered(): void {
    const { unnumbered, window, limits } = this;
    const written = this.state === "live" ? this.written : Number.POSITIVE_INFINITY;
    const { from, count } = unnumberedBatch(unnumbered, written, window, limits);
    const messages = unnumbered.slice(from, count);
    const [first] = messages;
    if (first === undefined) {
      this.settleUnnumbered(from, "dropped");
      return;
    }
    this.effects.writeBatch("at-most-once", first.topicKey, 0, messages);
    this.settleUnnumbered(from + count - 1, "sent");
  }

  /** Writes one batch of numbered messages up to `limit`; false when there is none or the credit is used up. */
  #writeNumbered(limit: number): boolean {
    const { from, count, bytes } = numberedBatch(this.queue, this.written + 1, limit, this.window, this.limits);
    if (count === 0) return false;
    const messages = this.queue.slice(from, count);
    this.written = from + count - 1;
    this.window.wrote(this.written, bytes);
    this.effects.writeBatch("at-least-once", (messages[0] as Message).topicKey, from, messages);
    this.wrote(messages);
    return true;
  }

  /** For checks: numbered messages have gone to the connection. That confirms nothing. */
  protected wrote(_messages: Message[]): void {}

  /**
   * Whether the next message to write can only be stored: the listener's limit is lower than when it was offered. Nothing
   * newer is written before the store has it, where the listener finds it.
   */
  protected isStuckBehindLong(): boolean {
    if (this.connection === undefined) return false;
    const next = this.queue.at(Math.max(this.written + 1, this.queue.first));
    return next !== undefined && this.window.isTooLong(next);
  }

  /**
   * Without a connection, at-most-once messages wait for one that is being made, and only so long; with one, until the
   * send timeout for what is in front of them.
   */
  protected dropUnnumbered(now: number): void {
    const { unnumbered } = this;
    const waits = this.connection !== undefined || ((this.dialling || this.state === "connecting") && !this.stopping);
    const last = waits ? unnumbered.waitingSince(this.unnumberedWaitMs(), now) : unnumbered.last;
    this.settleUnnumbered(last, "dropped");
  }

  protected unnumberedWaitMs(): number {
    return this.connection === undefined ? this.limits.connectWaitMs : this.limits.sendTimeoutMs;
  }
}
