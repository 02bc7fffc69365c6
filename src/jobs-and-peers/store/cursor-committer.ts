/**
 * Group commit of cursors: one statement commits the cursors of all waiting channels, one statement at a time.
 *
 *     idle ──commit()──▶ flushing ──done, more waiting──▶ flushing
 *       ▲                  │   └─────failed, not writable──▶ waiting ──backoff, lease held again──▶ flushing
 *       └──done, none left─┘
 *
 * A flush starts at once if none is running, otherwise when the running one ends. So the number of channels per
 * statement follows from the duration of a statement.
 */

import { postgresBackoff } from "../../foundation/postgres/index.js";
import { backoffMs, type Clock, Waiters } from "../../foundation/runtime/index.js";
import type { Position } from "./channels.js";
import type { CommittedCursors, CursorCommit, CursorCommits } from "./cursor-commits.js";
import type { Lease } from "./leases.js";
import { type LeftMessage, leftBytes } from "./leaving.js";
import { insertBytes, insertRows } from "./stored-messages.js";

/** Events of a {@link CursorCommitter}. */
export interface CursorCommitterEvents {
  /**
   * Called when cursors are committed, with what leaves with them, so that they may be acknowledged.
   *
   * @param rows rows of messages with a worker
   */
  onCommitted(commits: readonly CursorCommit[], rows: CommittedCursors["rows"]): void;
  /** Called once, if another process owns the name. Nothing is committed from then on. */
  onFenced(): void;
  /** Called for a channel of another listener: its cursor was not committed and must not be acknowledged. */
  onNotOwned(channelId: number): void;
  /** Called when a flush has failed. It will be retried. */
  onError(error: unknown): void;
}

/** Uncommitted cursor of a channel, and what leaves with it. */
interface UncommittedChannel extends CursorCommit {
  epoch: number;
  number: number;
  readonly left: LeftMessage[];
  leftBytes: number;
}

/** Commits the cursors of one listener. */
export class CursorCommitter {
  readonly #lease: Lease;
  readonly #store: Pick<CursorCommits, "commitCursors">;
  readonly #clock: Clock;
  readonly #events: CursorCommitterEvents;
  /** Writes per channel, in order. A channel has more than one entry only if much leaves it. */
  readonly #waiting = new Map<number, UncommittedChannel[]>();
  readonly #endLeaseWatch: () => void;
  #state: "idle" | "flushing" | "waiting" = "idle";
  #failures = 0;
  #fenced = false;
  /** True after close or fencing: further commits are ignored. */
  #ended = false;
  #cancelRetry: () => void = () => {};
  readonly #onDrained = new Waiters();

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
      else if (state === "held" && this.#state === "waiting") this.#startFlush();
    });
  }

  /** Adds a cursor of a channel, and what leaves with it. A newer cursor replaces one whose statement has not been sent. */
  commit(channelId: number, cursor: Position, left: readonly LeftMessage[] = []): void {
    if (this.#ended) return;
    const entries = this.#waiting.get(channelId) ?? [];
    if (entries.length === 0) this.#waiting.set(channelId, entries);
    const add = (): UncommittedChannel => {
      const entry = { channelId, ...cursor, left: [], leftBytes: 0 };
      entries.push(entry);
      return entry;
    };
    let entry = entries.at(-1) ?? add();
    for (const message of left) {
      const bytes = leftBytes(message);
      if (entry.left.length > 0 && (entry.leftBytes + bytes > insertBytes || entry.left.length >= insertRows))
        entry = add();
      entry.left.push(message);
      entry.leftBytes += bytes;
      // A cursor passes what leaves with it, and nothing that leaves later.
      [entry.epoch, entry.number] = [message.epoch, message.number];
    }
    [entry.epoch, entry.number] = [cursor.epoch, cursor.number];
    if (this.#state !== "idle") return;
    this.#state = "waiting";
    // Runs after the pending socket events of this event-loop turn, so that their cursors share one statement.
    setImmediate(() => this.#startFlush());
  }

  /**
   * Resolves when no commit is waiting: false if another process owns the name, otherwise true. {@link close}, which
   * discards waiting commits, resolves it too.
   */
  async drain(): Promise<boolean> {
    if (this.#state !== "idle" && !this.#fenced) await this.#onDrained.next();
    return !this.#fenced;
  }

  /** Discards waiting commits and starts no further flush. A running flush may still commit. */
  close(): void {
    this.#ended = true;
    this.#waiting.clear();
    this.#cancelRetry();
    this.#endLeaseWatch();
    if (this.#state === "waiting") this.#becomeIdle();
  }

  #startFlush(): void {
    this.#cancelRetry();
    if (this.#state === "flushing") return;
    if (this.#waiting.size === 0) {
      this.#becomeIdle();
      return;
    }
    if (!this.#lease.isWritable) {
      this.#retryLater();
      return;
    }
    this.#state = "flushing";
    this.#flush(this.#take()).catch((error) => {
      this.#retryLater();
      this.#events.onError(error);
    });
  }

  async #flush(batch: readonly UncommittedChannel[]): Promise<void> {
    let result: CommittedCursors | "fenced";
    try {
      result = await this.#store.commitCursors(this.#lease, batch);
    } catch (error) {
      // After close(), `commit` ignores the batch, so nothing is retried.
      this.#requeue(batch);
      this.#state = "waiting";
      this.#failures += 1;
      if (this.#waiting.size === 0) this.#becomeIdle();
      else this.#retryLater();
      this.#events.onError(error);
      return;
    }
    this.#failures = 0;
    this.#state = "waiting";
    if (this.#ended) {
      // Closed during the flush: other listeners may own the channels by now.
      this.#becomeIdle();
      return;
    }
    if (result === "fenced") {
      this.#end();
      return;
    }
    const committed = new Set(result.committed);
    this.#events.onCommitted(
      batch.filter(({ channelId }) => committed.has(channelId)),
      result.rows,
    );
    for (const channelId of result.notOwned) {
      this.#waiting.delete(channelId);
      this.#events.onNotOwned(channelId);
    }
    this.#startFlush();
  }

  /** Takes the first entry of each channel, as long as what leaves fits into one statement. One entry always fits. */
  #take(): UncommittedChannel[] {
    const batch: UncommittedChannel[] = [];
    let [bytes, rows] = [0, 0];
    for (const [channelId, entries] of this.#waiting) {
      const [entry] = entries as [UncommittedChannel];
      if (rows > 0 && (bytes + entry.leftBytes > insertBytes || rows + entry.left.length > insertRows)) continue;
      bytes += entry.leftBytes;
      rows += entry.left.length;
      batch.push(entry);
      if (entries.length > 1) entries.shift();
      else this.#waiting.delete(channelId);
    }
    return batch;
  }

  /** Puts a failed batch back in front of newer commits, merged with them where possible. */
  #requeue(batch: readonly UncommittedChannel[]): void {
    for (const entry of batch) {
      const { channelId } = entry;
      const newer = this.#waiting.get(channelId) ?? [];
      this.#waiting.delete(channelId);
      for (const { left, ...cursor } of [entry, ...newer]) this.commit(channelId, cursor, left);
    }
  }

  #retryLater(): void {
    this.#state = "waiting";
    this.#cancelRetry = this.#clock.setTimeout(() => this.#startFlush(), backoffMs(postgresBackoff, this.#failures));
  }

  #end(): void {
    if (this.#fenced) return;
    this.#fenced = true;
    this.close();
    this.#events.onFenced();
  }

  #becomeIdle(): void {
    this.#state = "idle";
    this.#onDrained.settle();
  }
}
