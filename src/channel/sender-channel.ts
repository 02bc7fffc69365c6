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
import { insertBatch } from "./batches.js";
import { Inserts } from "./inserts.js";
import type { Position } from "./position.js";
import type { AckNews, LinkState, OutgoingMessage, SenderEffects, SenderLimits, WelcomeNews } from "./sender-types.js";
import { SenderWriting } from "./sender-writing.js";

export class SenderChannel<Message extends OutgoingMessage> extends SenderWriting<Message> {
  protected busy = false;
  /** False while the lease is not surely held: nothing is written to the store. */
  protected mayStore = true;
  readonly #inserts: Inserts;
  #endedAs: "fenced" | "abandoned" = "abandoned";

  #currentEpoch: number;

  /**
   * @param lastNumber where the channel was used before under this epoch: its last number. All up to there must be confirmed
   */
  constructor(currentEpoch: number, limits: SenderLimits, effects: SenderEffects<Message>, lastNumber = 0) {
    super(limits, effects, lastNumber);
    this.#currentEpoch = currentEpoch;

    this.stored = lastNumber;
    this.#inserts = new Inserts(limits);
  }

  /** The sender's epoch, under which messages are numbered. */
  get epoch(): number {
    return this.#currentEpoch;
  }

  get link(): LinkState {
    return this.state;
  }

  /** The greatest number that is surely committed in Postgres by an insert of this channel. */
  get storedNumber(): number {
    return this.stored;
  }

  /** Writes and stores what can be written and stored now. */
  flush(now: number): void {
    if (this.state === "ended") {
      this.settleAll(this.#endedAs);
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
    const { queue, unnumbered } = this;
    const oldest = queue.offeredAt(queue.first);
    if (oldest !== undefined) {
      if (this.#inserts.underWay === 0 && this.mayStore) {
        const due = this.#storesEverything() ? Number.NEGATIVE_INFINITY : oldest + this.limits.ackTimeoutMs;
        at = Math.max(due, this.#inserts.notBefore);
      }
      const unsettled = queue.offeredAt(this.settledThrough + 1);
      if (unsettled !== undefined) at = Math.min(at, unsettled + this.limits.sendTimeoutMs);
    }
    const waiting = unnumbered.offeredAt(unnumbered.first);
    if (waiting !== undefined) at = Math.min(at, waiting + this.unnumberedWaitMs());
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
    this.window.open(welcome.credit, welcome.maxMessageBytes);
    this.#acknowledge(welcome.cursor.epoch, welcome.cursor.number);
    this.written = this.confirmed();
    this.setState("draining");
    this.#goLiveIfShort(welcome.backlog);
    this.flush(now);
  }

  onAck(connection: unknown, ack: AckNews, now: number): void {
    if (connection !== this.connection || this.state === "ended") return;
    this.#acknowledge(ack.cursor.epoch, ack.cursor.number);
    this.window.credit = ack.credit;
    this.busy = ack.busy;
    if (this.state === "draining") this.#goLiveIfShort(ack.backlog);
    else if (this.state === "going-live" && ack.live) this.setState("live");
    this.flush(now);
  }

  /** The listener goes in good order; its final cursor acknowledges. The connection ends soon. */
  onGoodbye(connection: unknown, cursor: Position, now: number): void {
    if (connection !== this.connection || this.state === "ended") return;
    this.#acknowledge(cursor.epoch, cursor.number);
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
    const number = this.#inserts.succeeded();
    if (number === 0) return;
    this.stored = Math.max(this.stored, number);
    this.confirmThrough(this.stored, "stored");
    if (this.#inserts.isToAnnounce(this.stored, this.acked, now)) this.effects.announce();
    this.flush(now);
  }

  /** The insert under way failed, or nobody knows: it is tried again, from the first unconfirmed message on. */
  onStoreFailed(now: number): void {
    if (this.#inserts.underWay === 0) return;
    this.#inserts.failed(now);
    this.timeOut(now);
  }

  /** Another process has the name: nothing can be confirmed any more. */
  onFenced(): void {
    this.end("fenced");
  }

  /** The channel is used no more. What is unconfirmed is settled with the outcome, and so is what is offered later. */
  end(outcome: "fenced" | "abandoned"): void {
    if (this.state !== "ended") this.#endedAs = outcome;
    this.connection = undefined;
    this.#inserts.underWay = 0;
    this.setState("ended");
    this.settleAll(this.#endedAs);
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
    this.#currentEpoch = epoch;
    this.connection = undefined;
    this.acked = 0;
    this.stored = 0;
    this.written = 0;
    this.#inserts.reset();
    this.renumber();
    this.goDown(now);
  }

  /** From now on everything unconfirmed is stored at once. */
  stop(now: number): void {
    this.stopping = true;
    this.flush(now);
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

  #goLiveIfShort(backlog: number): void {
    if (this.stopping || backlog > this.limits.shortBacklogRows) return;
    this.effects.writeGoLive();
    this.setState("going-live");
  }

  #acknowledge(epoch: number, number: number): void {
    if (epoch !== this.#currentEpoch || number <= this.acked) return;
    this.acked = Math.min(number, this.queue.last);
    this.window.landed(this.acked);
    this.confirmThrough(this.acked, "delivered");
  }

  /** Whether every unconfirmed message is to be stored now, not only those that have waited too long. */
  #storesEverything(): boolean {
    if (this.stopping || this.state === "down" || this.isStuckBehindLong()) return true;
    if (this.state === "draining") return !this.#isAheadOfDrain(this.limits.shortBacklogRows);
    return this.busy && !this.#isAheadOfDrain(this.limits.insertRows);
  }

  /**
   * The listener has many stored messages to take: more are stored at its pace, as acknowledgements come, or when the ack
   * timeout asks for it. So the backlog of a sender that never pauses becomes short, too, and its channel goes live.
   */
  #isAheadOfDrain(rows: number): boolean {
    return this.stored - this.acked >= rows;
  }

  /** Starts the next insert if one is due: always the oldest unconfirmed messages, one insert at a time. */
  protected storeDue(now: number): void {
    if (this.#inserts.underWay !== 0 || !this.mayStore || now < this.#inserts.notBefore) return;
    const through = this.#storesEverything() ? this.queue.last : this.overdueThrough(now);
    const { from, count } = insertBatch(this.queue, through, this.limits);
    this.beginInsert(from, this.queue.slice(from, count));
  }

  /** The last number whose message has waited too long for its acknowledgement. */
  protected overdueThrough(now: number): number {
    return this.queue.waitingSince(this.limits.ackTimeoutMs, now);
  }

  protected beginInsert(firstNumber: number, messages: Message[]): void {
    if (messages.length === 0) return;
    this.#inserts.underWay = firstNumber + messages.length - 1;
    this.effects.store(firstNumber, messages);
  }
}
