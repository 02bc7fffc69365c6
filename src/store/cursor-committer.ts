/**
 * Group commit of cursors: one statement for all channels that wait, one statement at a time.
 *
 *     idle ──commit()──▶ flushing ──done, more waits──▶ flushing
 *       ▲                  │   └─────failed, not writable──▶ waiting ──backoff, lease held again──▶ flushing
 *       └──done, no more───┘
 *
 * A flush begins at once when nothing is under way, and as soon as the last one ended otherwise: how many channels share
 * a statement follows from how long statements take. One that only removes marks waits for more of them (`sweeping`), until
 * there is something that may not wait.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { postgresBackoff } from "../postgres/index.js";
import { backoffMs, type Clock } from "../runtime/index.js";
import type { Position } from "./channels.js";
import type { CommittedCursors, CursorCommit, CursorCommits, DeadLetter } from "./cursor-commits.js";
import type { Lease } from "./leases.js";

/** What the committer tells. */
export interface CursorCommitterEvents {
  /** These cursors are committed, now they may be acknowledged; and what else was handed over for their channels. */
  onCommitted(commits: readonly CursorCommit[]): void;
  /** Another process has the name; nothing is committed from here on. Called once. */
  onFenced(): void;
  /** The channel belongs to another listener: it is not committed, and must not be acknowledged. */
  onNotOwned(connectionKey: number): void;
  /** A flush failed; it is tried again by itself. */
  onError(error: unknown): void;
}

/** What waits for a channel: its newest cursor, and what else is done. Without a cursor both numbers are 0. */
interface Waiting extends CursorCommit {
  epoch: number;
  number: number;
  readonly deadLetters: DeadLetter[];
  deadLetterBytes: number;
  readonly done: Position[];
  readonly unparked: Position[];
  hasMarks: boolean;
}

/** What is done of a channel. */
export interface Done {
  /** Up to here everything is. */
  readonly cursor?: Position | undefined;
  /** A message that was given up. */
  readonly deadLetter?: DeadLetter;
  /** Messages beyond the cursor, which are to be marked. */
  readonly messages?: readonly Position[];
  /** Parked messages. */
  readonly unparked?: readonly Position[];
  /** There may be marks at or below the cursor. */
  readonly hasMarks?: boolean;
  /** Nobody waits for it, and what it says is in the store already, as marks. */
  readonly mayWait?: boolean;
}

/** Commits the cursors of one listener. */
export class CursorCommitter {
  readonly #lease: Lease;
  readonly #store: Pick<CursorCommits, "commitCursors">;
  readonly #clock: Clock;
  readonly #events: CursorCommitterEvents;
  /** For each channel what to write, in this order; more than one entry only where dead letters are large. */
  readonly #waiting = new Map<number, Waiting[]>();
  readonly #endLeaseWatch: () => void;
  #state: "idle" | "sweeping" | "flushing" | "waiting" = "idle";
  /** Some of what waits may not. */
  #isUrgent = false;
  #failures = 0;
  #fenced = false;
  /** Nothing is taken any more: closed, or fenced. */
  #ended = false;
  #cancelRetry: () => void = () => {};
  #onDrained: (() => void)[] = [];

  constructor(
    lease: Lease,
    store: Pick<CursorCommits, "commitCursors">,
    options: { readonly clock: Clock; readonly events: CursorCommitterEvents },
  ) {
    this.#lease = lease;
    this.#store = store;
    this.#clock = options.clock;
    this.#events = options.events;
    this.#endLeaseWatch = lease.onChange((state) => {
      if (state === "lost") this.#end();
      else if (state === "held" && this.#state === "waiting") this.#begin();
    });
  }

  /** Hands over what is done of a channel. A newer cursor takes the place of one that is not under way yet. */
  commit(
    connectionKey: number,
    { cursor, deadLetter, messages = [], unparked = [], hasMarks = false, mayWait = false }: Done,
  ): void {
    if (this.#ended) return;
    this.#isUrgent ||= !mayWait;
    const entries = this.#waiting.get(connectionKey) ?? [];
    if (entries.length === 0) this.#waiting.set(connectionKey, entries);
    const letterBytes = deadLetter === undefined ? 0 : bytesOf(deadLetter);
    let entry = entries.at(-1);
    if (entry === undefined || entry.deadLetterBytes + letterBytes > storeConstants.insertBytes) {
      const nothing = { epoch: 0, number: 0, deadLetters: [], deadLetterBytes: 0, done: [], unparked: [] };
      entry = { connectionKey, ...nothing, hasMarks: false };
      entries.push(entry);
    }
    if (cursor !== undefined) [entry.epoch, entry.number] = [cursor.epoch, cursor.number];
    entry.deadLetterBytes += letterBytes;
    entry.hasMarks ||= hasMarks;
    entry.done.push(...messages);
    entry.unparked.push(...unparked);
    if (deadLetter !== undefined) entry.deadLetters.push(deadLetter);
    if (this.#state === "idle" || this.#state === "sweeping") this.#schedule();
  }

  /** Resolves when nothing waits any more: all is committed, or `false` because another process has the name. */
  async drain(): Promise<boolean> {
    if (this.#state === "sweeping") {
      this.#isUrgent = true;
      this.#schedule();
    }
    if (this.#state !== "idle" && !this.#fenced) await new Promise<void>((resolve) => this.#onDrained.push(resolve));
    return !this.#fenced;
  }

  /** Drops what waits, and begins no flush any more. One that is under way may still be committed. */
  close(): void {
    this.#ended = true;
    this.#waiting.clear();
    this.#cancelRetry();
    this.#endLeaseWatch();
    if (this.#state === "waiting" || this.#state === "sweeping") this.#rest();
  }

  #schedule(): void {
    if (this.#isUrgent) {
      this.#cancelRetry();
      this.#state = "waiting";
      // After what sockets have brought in this turn of the event loop, so that its cursors share a statement.
      setImmediate(() => this.#begin());
    } else if (this.#state !== "sweeping") {
      this.#state = "sweeping";
      this.#cancelRetry = this.#clock.setTimeout(() => this.#begin(), storeConstants.markSweepMs);
    }
  }

  #begin(): void {
    this.#cancelRetry();
    if (this.#state === "flushing") return;
    if (this.#waiting.size === 0) {
      this.#rest();
      return;
    }
    if (!this.#lease.isWritable) {
      this.#retryLater();
      return;
    }
    this.#state = "flushing";
    void this.#flush(this.#take());
  }

  async #flush(batch: readonly Waiting[]): Promise<void> {
    let result: CommittedCursors | "fenced";
    try {
      result = await this.#store.commitCursors(this.#lease, batch);
    } catch (error) {
      // Nothing is put back after close(): then there is nothing to try again.
      this.#putBack(batch);
      this.#state = "waiting";
      this.#failures += 1;
      if (this.#waiting.size === 0) this.#rest();
      else this.#retryLater();
      this.#events.onError(error);
      return;
    }
    this.#failures = 0;
    this.#state = "waiting";
    if (this.#ended) {
      // Closed meanwhile: its channels may be others' by now.
      this.#rest();
      return;
    }
    if (result === "fenced") {
      this.#end();
      return;
    }
    const committed = new Set(result.committed);
    this.#events.onCommitted(batch.filter(({ connectionKey }) => committed.has(connectionKey)));
    for (const connectionKey of result.notOwned) {
      this.#waiting.delete(connectionKey);
      this.#events.onNotOwned(connectionKey);
    }
    if (this.#waiting.size === 0 || this.#isUrgent) this.#begin();
    else this.#schedule();
  }

  /** The first entry of every channel, as far as their dead letters fit one statement; one always does. */
  #take(): Waiting[] {
    const batch: Waiting[] = [];
    let bytes = 0;
    for (const [connectionKey, entries] of this.#waiting) {
      const [entry] = entries as [Waiting];
      if (bytes > 0 && bytes + entry.deadLetterBytes > storeConstants.insertBytes) continue;
      bytes += entry.deadLetterBytes;
      batch.push(entry);
      if (entries.length > 1) entries.shift();
      else this.#waiting.delete(connectionKey);
    }
    this.#isUrgent = this.#waiting.size > 0;
    return batch;
  }

  /** What could not be written goes in front of what has come since, and into it where it fits. */
  #putBack(batch: readonly Waiting[]): void {
    for (const entry of batch) {
      const { connectionKey } = entry;
      const newer = this.#waiting.get(connectionKey) ?? [];
      this.#waiting.delete(connectionKey);
      for (const { epoch, number, deadLetters, done, unparked, hasMarks } of [entry, ...newer]) {
        for (const deadLetter of deadLetters) this.commit(connectionKey, { deadLetter });
        const cursor = epoch > 0 ? { epoch, number } : undefined;
        this.commit(connectionKey, { cursor, messages: done, unparked, hasMarks });
      }
    }
  }

  #retryLater(): void {
    this.#state = "waiting";
    this.#cancelRetry = this.#clock.setTimeout(() => this.#begin(), backoffMs(postgresBackoff, this.#failures));
  }

  #end(): void {
    if (this.#fenced) return;
    this.#fenced = true;
    this.close();
    this.#events.onFenced();
  }

  #rest(): void {
    this.#state = "idle";
    for (const resolve of this.#onDrained.splice(0)) resolve();
  }
}

/** About as much as a statement has for it. */
function bytesOf({ payload, headers, errorMessage, stack = "", failures = [] }: DeadLetter): number {
  const texts = [...headers.flat(), errorMessage, stack, ...failures.map(({ message }) => message)];
  return payload.length + texts.reduce((sum, text) => sum + text.length, 0);
}
