/**
 * The sending half of a channel, as a pure state machine: events come in with their time, effects go out. It knows no
 * socket, no database and no clock.
 *
 * At-least-once messages have contiguous numbers within the sender's epoch and are in one queue until they are
 * confirmed. Three watermarks move over it, all of them numbers of this epoch:
 *
 *     acked    the listener's committed cursor, as heard
 *     stored   surely committed in Postgres: always a prefix, since one insert at a time begins behind it
 *     written  handed to the present connection, or skipped there because the store has it
 *
 * A message is confirmed by whichever of acked and stored passes it first. It may travel both ways; its number makes
 * the second copy harmless.
 */
import { Fifo } from "./fifo.js";
import type { Position } from "./position.js";
import type {
  AckNews,
  LinkState,
  OutgoingMessage,
  SenderEffects,
  SenderLimits,
  SendOutcome,
  WelcomeNews,
} from "./sender-types.js";

/** A batch on the wire that the listener has not acknowledged wholly. */
interface Flight {
  readonly lastNumber: number;
  readonly bytes: number;
}

export class SenderChannel<Message extends OutgoingMessage> {
  protected currentEpoch: number;
  protected readonly limits: SenderLimits;
  protected readonly effects: SenderEffects<Message>;

  protected state: LinkState = "connecting";
  /** Identity of the present connection; events that name another one do nothing. */
  protected connection: unknown;
  protected dialling = false;
  protected writable = true;
  protected busy = false;
  protected stopping = false;
  /** False while the lease is not surely held: nothing is written to the store. */
  protected mayStore = true;

  protected lastNumber = 0;
  protected acked = 0;
  protected stored = 0;
  protected written = 0;
  /** Last number of the insert under way; 0 when there is none. */
  protected inserting = 0;
  protected readonly queue = new Fifo<Message>();
  protected queueBytes = 0;
  /** At-most-once messages that wait for the connection, with the number they come after. */
  protected readonly unnumbered = new Fifo<{ message: Message; after: number }>();
  protected unnumberedBytes = 0;

  private readonly flights = new Fifo<Flight>();
  private flightBytes = 0;
  private credit = 0;
  private maxMessageBytes = Number.POSITIVE_INFINITY;
  private retryDelayMs = 0;
  private retryAt = Number.NEGATIVE_INFINITY;
  /** Messages up to this number were reported as timed out, though they are still queued. */
  private timedOut = 0;
  private endedAs: "fenced" | "abandoned" = "abandoned";
  private announcedNumber = 0;
  private announcedAt = Number.NEGATIVE_INFINITY;

  constructor(epoch: number, limits: SenderLimits, effects: SenderEffects<Message>) {
    this.currentEpoch = epoch;
    this.limits = limits;
    this.effects = effects;
  }

  /** The sender's epoch, under which messages are numbered. */
  get epoch(): number {
    return this.currentEpoch;
  }

  get link(): LinkState {
    return this.state;
  }

  /** Messages that wait for a confirmation or for the connection. */
  get pendingMessages(): number {
    return this.queue.length + this.unnumbered.length;
  }

  /** Their payload bytes. */
  get pendingBytes(): number {
    return this.queueBytes + this.unnumberedBytes;
  }

  /** The greatest number that is surely committed in Postgres by an insert of this channel. */
  get storedNumber(): number {
    return this.stored;
  }

  /** Takes a message; call {@link flush} before the tick ends. False when the queue is full (one message always fits). */
  offer(message: Message, now: number): boolean {
    const pending = this.pendingMessages;
    const size = message.payload.length;
    if (pending >= this.limits.maxQueueMessages && pending > 0) return false;
    if (pending > 0 && this.pendingBytes + size > this.limits.maxQueueBytes) return false;
    message.offeredAt = now;
    if (message.delivery === "at-most-once") {
      this.unnumbered.push({ message, after: this.lastNumber });
      this.unnumberedBytes += size;
    } else {
      this.lastNumber += 1;
      message.number = this.lastNumber;
      this.queue.push(message);
      this.queueBytes += size;
    }
    return true;
  }

  /** Writes and stores what can be written and stored now. */
  flush(now: number): void {
    if (this.state === "ended") {
      this.settleAll(this.endedAs);
      return;
    }
    this.write();
    if (this.unnumbered.length > 0) this.dropUnnumbered(now);
    if (this.queue.length > 0) this.storeDue(now);
  }

  /** The moment at which {@link tick} has something to do, in ms; Infinity when only an event can change anything. */
  deadline(): number {
    let at = Number.POSITIVE_INFINITY;
    if (this.state === "ended") return at;
    const oldest = this.queue.at(0);
    if (oldest !== undefined) {
      if (this.inserting === 0 && this.mayStore) {
        const due = this.storesEverything() ? Number.NEGATIVE_INFINITY : oldest.offeredAt + this.limits.ackTimeoutMs;
        at = Math.max(due, this.retryAt);
      }
      const unsettled = this.queue.at(Math.max(0, this.timedOut - oldest.number + 1));
      if (unsettled !== undefined) at = Math.min(at, unsettled.offeredAt + this.limits.sendTimeoutMs);
    }
    const waiting = this.unnumbered.at(0);
    if (waiting !== undefined) {
      const { connectWaitMs, sendTimeoutMs } = this.limits;
      at = Math.min(at, waiting.message.offeredAt + (this.connection === undefined ? connectWaitMs : sendTimeoutMs));
    }
    return at;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.timeOut(now);
    this.flush(now);
  }

  /** A dial begins: at-most-once messages wait for it, and numbered ones too if it is the first. */
  onDialling(): void {
    this.dialling = true;
  }

  /** The dial failed. */
  onDialFailed(now: number): void {
    this.dialling = false;
    if (this.connection === undefined) this.goDown(now);
  }

  /** The listener welcomed a new connection, which replaces an older one. */
  onConnected(connection: unknown, welcome: WelcomeNews, now: number): void {
    if (this.state === "ended") return;
    this.connection = connection;
    this.dialling = false;
    this.writable = true;
    this.busy = false;
    this.flights.clear();
    this.flightBytes = 0;
    this.credit = welcome.credit;
    this.maxMessageBytes = welcome.maxMessageBytes;
    this.acknowledge(welcome.cursor.epoch, welcome.cursor.number);
    this.written = this.confirmed();
    this.setState("draining");
    this.goLiveIfShort(welcome.backlog);
    this.flush(now);
  }

  onAck(connection: unknown, ack: AckNews, now: number): void {
    if (connection !== this.connection || this.state === "ended") return;
    this.acknowledge(ack.cursor.epoch, ack.cursor.number);
    this.credit = ack.credit;
    this.busy = ack.busy;
    if (this.state === "draining") this.goLiveIfShort(ack.backlog);
    else if (this.state === "going-live" && ack.live) this.setState("live");
    this.flush(now);
  }

  /** The listener goes in good order; its final cursor acknowledges. The connection ends soon. */
  onGoodbye(connection: unknown, cursor: Position, now: number): void {
    if (connection !== this.connection || this.state === "ended") return;
    this.acknowledge(cursor.epoch, cursor.number);
    this.goDown(now);
  }

  /** The connection takes more again after {@link pauseWriting}. */
  onWritable(connection: unknown, now: number): void {
    if (connection !== this.connection) return;
    this.writable = true;
    this.flush(now);
  }

  /** The connection's buffer is full: nothing is written until {@link onWritable}. */
  pauseWriting(): void {
    this.writable = false;
  }

  /** The connection ended: what is unconfirmed is stored, in order, before anything newer. */
  onClosed(connection: unknown, now: number): void {
    if (connection !== this.connection || this.state === "ended") return;
    this.goDown(now);
  }

  /** The insert under way is surely committed. */
  onStored(now: number): void {
    if (this.inserting === 0) return;
    this.stored = Math.max(this.stored, this.inserting);
    this.inserting = 0;
    this.retryDelayMs = 0;
    this.confirmThrough(this.stored, "stored");
    this.announceStored(now);
    this.flush(now);
  }

  /** The insert under way failed, or nobody knows: it is tried again, from the first unconfirmed message on. */
  onStoreFailed(now: number): void {
    if (this.inserting === 0) return;
    this.inserting = 0;
    const { storeRetryMinMs, storeRetryMaxMs } = this.limits;
    this.retryDelayMs = Math.min(storeRetryMaxMs, Math.max(storeRetryMinMs, this.retryDelayMs * 2));
    this.retryAt = now + this.retryDelayMs;
    this.timeOut(now);
  }

  /** Another process has the name: nothing can be confirmed any more. */
  onFenced(): void {
    this.end("fenced");
  }

  /** The channel is used no more. What is unconfirmed is settled with the outcome, and so is what is offered later. */
  end(outcome: "fenced" | "abandoned"): void {
    if (this.state !== "ended") this.endedAs = outcome;
    this.connection = undefined;
    this.inserting = 0;
    this.setState("ended");
    this.settleAll(this.endedAs);
  }

  /** Whether the lease is surely held, and so whether the store may be written. */
  setMayStore(mayStore: boolean, now: number): void {
    this.mayStore = mayStore;
    if (mayStore) this.flush(now);
  }

  /**
   * The sender took its name anew, because another server answers that may have lost the last commits: what is
   * unconfirmed is numbered again under the new epoch. Whatever was under way under the old one confirms nothing; the
   * caller closes the connection and drops the answer of an insert under way.
   */
  rebase(epoch: number, now: number): void {
    if (this.state === "ended") return;
    this.currentEpoch = epoch;
    this.connection = undefined;
    this.acked = 0;
    this.stored = 0;
    this.written = 0;
    this.inserting = 0;
    this.announcedNumber = 0;
    this.retryAt = Number.NEGATIVE_INFINITY;
    this.lastNumber = this.queue.length;
    let timedOut = 0;
    for (let index = 0; index < this.queue.length; index++) {
      const message = this.queue.at(index) as Message;
      if (message.number <= this.timedOut) timedOut = index + 1;
      message.number = index + 1;
    }
    this.timedOut = timedOut;
    for (let index = 0; index < this.unnumbered.length; index++) {
      (this.unnumbered.at(index) as { after: number }).after = 0;
    }
    this.goDown(now);
  }

  /** From now on everything unconfirmed is stored at once. */
  stop(now: number): void {
    this.stopping = true;
    this.flush(now);
  }

  /** Everything up to here is acknowledged or stored. */
  protected confirmed(): number {
    return Math.max(this.acked, this.stored);
  }

  protected setState(state: LinkState): void {
    if (state === this.state) return;
    this.state = state;
    this.effects.linkChanged(state);
  }

  protected goDown(now: number): void {
    if (this.state === "ended") return;
    this.connection = undefined;
    this.busy = false;
    this.setState("down");
    this.flush(now);
  }

  private goLiveIfShort(backlog: number): void {
    if (this.stopping || backlog > this.limits.shortBacklogRows) return;
    this.effects.writeGoLive();
    this.setState("going-live");
  }

  private acknowledge(epoch: number, number: number): void {
    if (epoch !== this.currentEpoch || number <= this.acked) return;
    this.acked = Math.min(number, this.lastNumber);
    for (let flight = this.flights.at(0); flight && flight.lastNumber <= this.acked; flight = this.flights.at(0)) {
      this.flightBytes -= flight.bytes;
      this.flights.shift();
    }
    this.confirmThrough(this.acked, "delivered");
  }

  protected confirmThrough(number: number, outcome: SendOutcome): void {
    for (let message = this.queue.at(0); message && message.number <= number; message = this.queue.at(0)) {
      this.queue.shift();
      this.queueBytes -= message.payload.length;
      this.settle(message, outcome);
    }
  }

  protected settle(message: Message, outcome: SendOutcome): void {
    if (message.settled) return;
    message.settled = true;
    this.effects.settle(message, outcome);
  }

  private settleAll(outcome: SendOutcome): void {
    for (let message = this.queue.shift(); message; message = this.queue.shift()) this.settle(message, outcome);
    for (let entry = this.unnumbered.shift(); entry; entry = this.unnumbered.shift()) {
      this.settle(entry.message, "dropped");
    }
    this.queueBytes = 0;
    this.unnumberedBytes = 0;
  }

  /** Writes to the connection, in the order of the offers while the channel is live, as far as credit goes. */
  private write(): void {
    if (this.connection === undefined || !this.writable) return;
    const numbered = this.state === "live" || this.state === "going-live";
    for (;;) {
      if (!this.writable) return;
      const entry = this.unnumbered.at(0);
      // What the store has is not written; the listener finds it there.
      this.written = Math.max(this.written, this.confirmed());
      if (entry !== undefined && (this.state !== "live" || entry.after <= this.written)) {
        this.writeUnnumbered(entry.message.topicKey);
      } else if (!numbered || !this.writeNumbered(entry?.after ?? Number.POSITIVE_INFINITY)) {
        return;
      }
    }
  }

  private writeUnnumbered(topicKey: number): void {
    const messages: Message[] = [];
    let bytes = 0;
    while (messages.length < this.limits.batchMessages) {
      const entry = this.unnumbered.at(0);
      if (entry === undefined || entry.message.topicKey !== topicKey) break;
      if (this.state === "live" && entry.after > this.written) break;
      if (this.isTooLong(entry.message)) {
        if (messages.length > 0) break;
        this.unnumbered.shift();
        this.unnumberedBytes -= entry.message.payload.length;
        this.settle(entry.message, "dropped");
        return;
      }
      if (bytes > 0 && bytes + entry.message.payload.length > this.limits.batchBytes) break;
      bytes += entry.message.payload.length;
      messages.push(entry.message);
      this.unnumbered.shift();
    }
    this.unnumberedBytes -= bytes;
    this.effects.writeBatch("at-most-once", topicKey, 0, messages);
    for (const message of messages) this.settle(message, "sent");
  }

  /** Writes one batch of numbered messages up to `limit`; false when there is none or the credit is used up. */
  private writeNumbered(limit: number): boolean {
    const base = this.queue.at(0)?.number;
    if (base === undefined) return false;
    const first = this.queue.at(this.written + 1 - base);
    if (first === undefined || this.isTooLong(first) || !this.hasCredit(first.payload.length, 0)) return false;
    const messages: Message[] = [];
    let bytes = 0;
    while (messages.length < this.limits.batchMessages) {
      const message = this.queue.at(first.number - base + messages.length);
      if (message === undefined || message.topicKey !== first.topicKey || message.number > limit) break;
      if (this.isTooLong(message)) break;
      const size = message.payload.length;
      if (bytes > 0 && (bytes + size > this.limits.batchBytes || !this.hasCredit(size, bytes))) break;
      bytes += size;
      messages.push(message);
    }
    if (messages.length === 0) return false;
    this.written = first.number + messages.length - 1;
    this.flights.push({ lastNumber: this.written, bytes });
    this.flightBytes += bytes;
    this.effects.writeBatch("at-least-once", first.topicKey, first.number, messages);
    this.wrote(messages);
    return true;
  }

  /**
   * A message that the listener no longer takes over the connection: its limit is lower than when the message was
   * offered. Nothing newer is written before the store has it, where the listener finds it.
   */
  private isTooLong(message: Message): boolean {
    return (message.encoding?.uncompressedBytes ?? message.payload.length) > this.maxMessageBytes;
  }

  /** Whether the next message to write can only be stored. */
  private isStuckBehindLong(): boolean {
    if (this.connection === undefined) return false;
    const base = this.queue.at(0)?.number;
    const next = base === undefined ? undefined : this.queue.at(Math.max(this.written + 1 - base, 0));
    return next !== undefined && this.isTooLong(next);
  }

  /** For checks: numbered messages have gone to the connection. That confirms nothing. */
  protected wrote(_messages: Message[]): void {}

  private hasCredit(size: number, batched: number): boolean {
    const inFlight = this.flightBytes + batched;
    return (inFlight === 0 && this.flights.length === 0) || inFlight + size <= this.credit;
  }

  /**
   * Without a connection, at-most-once messages wait for one that is being made, and only so long; with one, until the
   * send timeout for what is in front of them.
   */
  private dropUnnumbered(now: number): void {
    const connected = this.connection !== undefined;
    const waits = connected || ((this.dialling || this.state === "connecting") && !this.stopping);
    const waitMs = connected ? this.limits.sendTimeoutMs : this.limits.connectWaitMs;
    for (let entry = this.unnumbered.at(0); entry; entry = this.unnumbered.at(0)) {
      if (waits && now < entry.message.offeredAt + waitMs) return;
      this.unnumbered.shift();
      this.unnumberedBytes -= entry.message.payload.length;
      this.settle(entry.message, "dropped");
    }
  }

  /** Whether every unconfirmed message is to be stored now, not only those that have waited too long. */
  private storesEverything(): boolean {
    if (this.stopping || this.state === "down" || this.isStuckBehindLong()) return true;
    if (this.state === "draining") return !this.isAheadOfDrain(this.limits.shortBacklogRows);
    return this.busy && !this.isAheadOfDrain(this.limits.insertRows);
  }

  /**
   * The listener has many stored messages to take: more are stored at its pace, as acknowledgements come, or when the ack
   * timeout asks for it. So the backlog of a sender that never pauses becomes short, too, and its channel goes live.
   */
  private isAheadOfDrain(rows: number): boolean {
    return this.stored - this.acked >= rows;
  }

  /** Starts the next insert if one is due: always the oldest unconfirmed messages, one insert at a time. */
  protected storeDue(now: number): void {
    if (this.inserting !== 0 || !this.mayStore || now < this.retryAt) return;
    const all = this.storesEverything();
    const messages: Message[] = [];
    let bytes = 0;
    while (messages.length < this.limits.insertRows) {
      const message = this.queue.at(messages.length);
      if (message === undefined || !(all || this.overdue(message, now))) break;
      if (bytes > 0 && bytes + message.payload.length > this.limits.insertBytes) break;
      bytes += message.payload.length;
      messages.push(message);
    }
    this.beginInsert(messages);
  }

  protected overdue(message: Message, now: number): boolean {
    return now >= message.offeredAt + this.limits.ackTimeoutMs;
  }

  protected beginInsert(messages: Message[]): void {
    const last = messages.at(-1);
    if (last === undefined) return;
    this.inserting = last.number;
    this.effects.store(messages);
  }

  /** One announcement until the listener has taken what was announced, or may have missed it. */
  private announceStored(now: number): void {
    if (this.acked < this.announcedNumber && now < this.announcedAt + this.limits.ackTimeoutMs) return;
    this.announcedNumber = this.stored;
    this.announcedAt = now;
    this.effects.announce();
  }

  private timeOut(now: number): void {
    const first = this.queue.at(0);
    if (first === undefined) return;
    for (let index = Math.max(0, this.timedOut - first.number + 1); ; index++) {
      const message = this.queue.at(index);
      if (message === undefined || now < message.offeredAt + this.limits.sendTimeoutMs) return;
      this.timedOut = message.number;
      this.settle(message, "timed-out");
    }
  }
}
