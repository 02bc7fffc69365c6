/**
 * What of a listener's channel is accepted, and in which order: the watermark, what is held above it, and the questions to
 * the store that close a gap.
 *
 * Numbered messages are accepted only as watermark + 1. What comes over the connection above that is held; the gap is
 * filled from the store, and only a query that began after the gap was seen may say that nobody has the numbers. The same
 * holds for the first message of a new epoch, which waits until a query begun after its Hello has shown that no row of an
 * older epoch is left, and for the answer to GoLive.
 */
import { Fifo } from "../runtime/index.js";
import type { ListenerEffects, ListenerLimits } from "./effects.js";
import type { Handling } from "./handling.js";
import { comparePositions, type IncomingMessage, type Position, type StoredRow } from "./messages.js";

/** What a query's finding settles: that no older epoch, no gap, or nothing before GoLive is left. */
export type Question = "epoch" | "gap" | "live";

/** Whether a finding of query number `query` counts for what was asked when `begunBefore` queries had begun. */
export type Concludes = (question: Question, query: number, begunBefore: number) => boolean;

/** Only a query that began afterwards has seen what there was. */
const beganAfter: Concludes = (_question, query, begunBefore) => query > begunBefore;

export class Intake {
  /** The rows left in the store when last asked. */
  backlog = 0;
  /** Queries begun so far; a finding counts for whatever was asked before its query began. */
  queriesBegun = 0;
  /** Rows at or below the cursor may lie in the store. */
  checkStale = false;
  /** Payload bytes that came over the connection and are not handled. */
  wireBytes = 0;
  readonly #held = new Fifo<IncomingMessage>();
  #querying = false;
  #wanted = false;
  /** Queries begun before the gap in front of `held` was seen. */
  #gapAfter: number | undefined;
  /** Queries begun before the Hello of an epoch above the watermark's. */
  #epochAfter: number | undefined;

  /** The newest accepted position. */
  watermark: Position;
  readonly concludes: Concludes;
  readonly #limits: ListenerLimits;
  readonly #effects: Pick<ListenerEffects, "query" | "gap">;
  readonly #handling: Handling;

  /** @param handling takes what is accepted */
  constructor(
    watermark: Position,
    limits: ListenerLimits,
    effects: Pick<ListenerEffects, "query" | "gap">,
    handling: Handling,
    concludes: Concludes = beganAfter,
  ) {
    this.watermark = watermark;
    this.#limits = limits;
    this.#effects = effects;
    this.#handling = handling;
    this.concludes = concludes;
  }

  get heldMessages(): number {
    return this.#held.length;
  }

  /** A connection of this epoch was let in, with so many rows above the watermark in the store. */
  onHello(epoch: number, backlog: number): void {
    this.backlog = backlog;
    if (epoch > this.watermark.epoch) this.#epochAfter = this.queriesBegun;
    if (backlog > 0 || this.#epochAfter !== undefined) this.want();
  }

  /** A message came over the connection, which is live or not. */
  take(message: IncomingMessage, live: boolean): void {
    this.wireBytes += message.payload.length;
    if (message.position !== undefined) this.#takeNumbered(message, message.position);
    else if (live && this.#held.length > 0) this.#held.push(message);
    else this.#handling.push(message);
  }

  /** A message with this number, or without one (0), would be accepted at once, and nothing is held before it. */
  isFree(epoch: number, number: number): boolean {
    const { watermark } = this;
    if (this.#held.length > 0) return false;
    return number === 0 || (epoch === watermark.epoch && number === watermark.number + 1);
  }

  /** A message that came over the connection is handled, or not needed. */
  forget({ payload }: IncomingMessage): void {
    this.wireBytes -= payload.length;
  }

  #takeNumbered(message: IncomingMessage, position: Position): void {
    if (comparePositions(position, this.watermark) <= 0) {
      this.forget(message);
      return;
    }
    if (this.#held.length === 0 && this.#isNext(position)) {
      this.#accept(message, position);
      return;
    }
    this.#held.push(message);
    if (this.#gapAfter === undefined && position.epoch === this.watermark.epoch) {
      this.#gapAfter = this.queriesBegun;
      this.want();
    }
  }

  /**
   * What a query found: rows above the position that it was asked for, in order.
   *
   * @returns the number of the query
   */
  takeRows(rows: readonly StoredRow[], remaining: number): number {
    this.#querying = false;
    for (const row of rows) this.#takeRow(row);
    this.backlog = remaining;
    if (remaining > 0) this.#wanted = true;
    return this.queriesBegun;
  }

  /** The store has nothing above the watermark, as query number `query` saw it. `linkEpoch` is the connection's. */
  conclude(query: number, linkEpoch: number | undefined): void {
    if (this.#epochAfter !== undefined && this.concludes("epoch", query, this.#epochAfter)) {
      this.#epochAfter = undefined;
      if (linkEpoch !== undefined && linkEpoch > this.watermark.epoch) this.watermark = { epoch: linkEpoch, number: 0 };
    }
    const first = this.#firstHeld();
    if (first === undefined || this.#gapAfter === undefined || !this.concludes("gap", query, this.#gapAfter)) return;
    if (first.epoch === this.watermark.epoch && first.number > this.watermark.number + 1) {
      this.#effects.gap(first.epoch, this.watermark.number + 1, first.number - 1);
      this.watermark = { epoch: first.epoch, number: first.number - 1 };
    }
  }

  onQueryFailed(): void {
    this.#querying = false;
    this.#wanted = true;
  }

  /** Accepts what is held and now in order, and notes the gap that is left. */
  release(): void {
    for (let message = this.#held.at(0); message; message = this.#held.at(0)) {
      const position = message.position;
      if (position !== undefined && comparePositions(position, this.watermark) > 0) {
        if (!this.#isNext(position)) break;
        this.#held.shift();
        this.#accept(message, position);
      } else {
        this.#held.shift();
        if (position === undefined) this.#handling.push(message);
        else this.forget(message);
      }
    }
    const first = this.#firstHeld();
    if (first === undefined) this.#gapAfter = undefined;
    else if (first.epoch === this.watermark.epoch) {
      this.#gapAfter = this.queriesBegun;
      this.#wanted = true;
    }
  }

  /** The connection is gone: what was held comes again. */
  dropHeld(): void {
    for (let message = this.#held.shift(); message; message = this.#held.shift()) {
      // At-most-once messages were in order behind what is held; now nothing comes before them any more.
      if (message.position === undefined) this.#handling.push(message);
      else this.forget(message);
    }
    this.#gapAfter = undefined;
  }

  /** The store is to be asked, now or when there is room. */
  want(): void {
    this.#wanted = true;
    this.askIfRoom();
  }

  /** Asks what is wanted, unless a query is under way. */
  askIfRoom(): void {
    if (!this.#wanted || this.#querying || !this.#hasRoom) return;
    this.#wanted = false;
    this.#querying = true;
    this.queriesBegun += 1;
    this.#effects.query(this.watermark);
  }

  /** Room for more rows in the handler's queue. */
  get #hasRoom(): boolean {
    const { refillBelow, refillBelowBytes } = this.#limits;
    return this.#handling.queued <= refillBelow && this.#handling.queuedBytes <= refillBelowBytes;
  }

  /** A row of a query whose snapshot held every row of older epochs that there is. */
  #takeRow(row: StoredRow): void {
    const { epoch, number } = row.position;
    if (comparePositions(row.position, this.watermark) <= 0) return;
    const before = epoch === this.watermark.epoch ? this.watermark.number : 0;
    if (number > before + 1) this.#effects.gap(epoch, before + 1, number - 1);
    this.#accept(row, row.position);
  }

  #accept(message: IncomingMessage, position: Position): void {
    this.watermark = position;
    if (this.#handling.push(message) && message.fromWire) this.forget(message);
  }

  #isNext({ epoch, number }: Position): boolean {
    return epoch === this.watermark.epoch && number === this.watermark.number + 1;
  }

  #firstHeld(): Position | undefined {
    for (let index = 0; ; index++) {
      const message = this.#held.at(index);
      if (message === undefined) return undefined;
      if (message.position !== undefined) return message.position;
    }
  }
}
