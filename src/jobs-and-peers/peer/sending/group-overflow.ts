/**
 * Messages for which no member of a group has room. They become rows of the queue, for any listener of their topic.
 *
 * One statement runs at a time, and writes what has come in the meantime. A message that is certainly not in the queue
 * after it, because Postgres was away or has refused it, goes to the channel of a member, which stores or retries it.
 */
import { HawserError } from "../../../foundation/errors/index.js";
import { inSpan, Waiters } from "../../../foundation/runtime/index.js";
import type { PeerContext } from "../core/context.js";
import { type Outgoing, receiptsFor } from "./outgoing.js";
import { startStoring } from "./spans.js";

/** Receipts of messages that no listener has yet. */
const receipts = receiptsFor("");

export class GroupOverflow {
  readonly #waiting: Outgoing[] = [];
  /** Messages of the running statement; empty once they are settled. */
  #writing: Outgoing[] = [];
  /** Payload bytes of the waiting messages, and of those in the running statement. */
  #bytes = 0;
  #isRunning = false;
  /** True while the running statement has no answer after the time of a send. */
  #isStuck = false;
  /** Messages on their way to a member. */
  readonly #leaving = new Set<Promise<void>>();
  /** True since a message was rejected for want of room, until the next accepted one. */
  #isFull = false;
  readonly #whenEmpty = new Waiters();
  #ended: HawserError | undefined;

  readonly #context: PeerContext;
  readonly #toMember: (message: Outgoing) => Promise<void>;

  /** @param toMember hands a message to the channel of a member, and settles it if it cannot. Never rejects */
  constructor(context: PeerContext, toMember: (message: Outgoing) => Promise<void>) {
    this.#context = context;
    this.#toMember = toMember;
  }

  /** Adds a message; its promise is rejected with `busy` if too many wait. */
  add(message: Outgoing): void {
    const { maxSendQueueMessages, maxSendQueueBytes } = this.#context.settings;
    const { length } = message.payload;
    const count = this.#waiting.length + this.#writing.length;
    if (this.#ended !== undefined) {
      message.fail(this.#ended);
      return;
    }
    if (count >= maxSendQueueMessages || (count > 0 && this.#bytes + length > maxSendQueueBytes)) {
      this.#reject(message, count);
      return;
    }
    this.#isFull = false;
    if (this.#isStuck) {
      this.#leave(message);
      return;
    }
    this.#waiting.push(message);
    this.#bytes += length;
    if (this.#isRunning) return;
    this.#isRunning = true;
    void this.#run();
  }

  /** Resolves when no message waits. */
  async drain(): Promise<void> {
    if (!this.#isEmpty) await this.#whenEmpty.next();
  }

  /** Rejects all messages. */
  end(code: "name_lost" | "not_running", why: string): void {
    this.#ended ??= new HawserError(code, `${why}; the message was waiting and was not sent`);
    for (const message of this.#takeWaiting()) message.fail(this.#ended);
    this.#settle((message) => message.fail(unconfirmed(message, code === "name_lost" ? code : "store_failed", why)));
  }

  get #isEmpty(): boolean {
    return this.#waiting.length + this.#writing.length + this.#leaving.size === 0;
  }

  async #run(): Promise<void> {
    // All sends of this turn of the event loop share the first statement.
    await new Promise(setImmediate);
    while (this.#waiting.length > 0) await this.#write();
    this.#isRunning = false;
  }

  async #write(): Promise<void> {
    const { store, sender, settings } = this.#context;
    this.#writing = this.#nextBatch();
    const messages = [...this.#writing];
    const timer = setTimeout(() => this.#timeOut(), settings.sendTimeoutMs);
    try {
      await inSpan(startStoring(messages), () =>
        store.enqueueSent(
          sender,
          messages.map(({ topic, payload, headers }) => ({ topic: topic.topic, payload, headers })),
        ),
      );
      this.#settle((message) => message.complete("stored", receipts));
    } catch (error) {
      this.#failed(error as HawserError);
    } finally {
      clearTimeout(timer);
      this.#isStuck = false;
    }
  }

  #nextBatch(): Outgoing[] {
    const { insertRows, insertBytes } = this.#context.settings;
    let count = 0;
    for (let bytes = 0; count < Math.min(insertRows, this.#waiting.length); count++) {
      bytes += this.#waiting[count]!.payload.length;
      if (count > 0 && bytes > insertBytes) break;
    }
    return this.#waiting.splice(0, count);
  }

  #failed(error: HawserError): void {
    const [first] = this.#writing;
    if (first === undefined) return;
    const { topic } = first.topic;
    this.#context.status.report({ kind: "sender_store_error", topic, peer: "", message: error.message, error });
    // A second row could be handled beside the first one.
    if (error.outcome === "unknown") this.#settle((message) => message.fail(error));
    else this.#settle((message) => this.#leave(message));
    this.#leaveAll();
  }

  /** Postgres does not answer: channels have their own patience with it. */
  #timeOut(): void {
    this.#isStuck = true;
    this.#settle((message) => message.fail(unconfirmed(message, "store_failed", "Postgres has not answered in time")));
    this.#leaveAll();
  }

  #leaveAll(): void {
    for (const message of this.#takeWaiting()) this.#leave(message);
    this.#checkEmpty();
  }

  #leave(message: Outgoing): void {
    const leaving = this.#toMember(message).finally(() => {
      this.#leaving.delete(leaving);
      this.#checkEmpty();
    });
    this.#leaving.add(leaving);
  }

  #takeWaiting(): Outgoing[] {
    const waiting = this.#waiting.splice(0);
    for (const { payload } of waiting) this.#bytes -= payload.length;
    return waiting;
  }

  /** Ends the messages of the running statement, whose answer concerns none of them any more. */
  #settle(end: (message: Outgoing) => void): void {
    const written = this.#writing;
    this.#writing = [];
    for (const message of written) {
      this.#bytes -= message.payload.length;
      end(message);
    }
    this.#checkEmpty();
  }

  #checkEmpty(): void {
    if (this.#isEmpty) this.#whenEmpty.settle();
  }

  #reject(message: Outgoing, count: number): void {
    const { topic } = message.topic;
    const text = `no member of "${topic}" has room, and ${count} messages already wait for the queue`;
    message.fail(new HawserError("busy", `${text}; await earlier sends first, or raise maxSendQueueMessages`));
    // The status is reported once until there is room again: one for each rejected send would be a flood.
    if (this.#isFull) return;
    this.#isFull = true;
    this.#context.status.report({ kind: "sender_busy", topic, peer: "", message: text });
  }
}

function unconfirmed(message: Outgoing, code: "name_lost" | "store_failed", why: string): HawserError {
  const text = `${why}; the message for "${message.topic.topic}" may be in the queue, and may arrive`;
  return new HawserError(code, text, { outcome: "unknown" });
}
