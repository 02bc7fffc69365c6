/**
 * How long a process that does not lead has seen nothing of the one that does.
 *
 * Only what it saw itself counts, by its own clock, and only as long as it saw it without a gap: a restart of Postgres, or a
 * stall of its own, is nothing that the leader can be blamed for.
 */
import type { LeadRow } from "./lead-table.js";

/** See above. */
export class LeaderWatch {
  #row: LeadRow | undefined;
  #firstHeardAt = 0;
  #lastSentAt = 0;
  #lastHeardAt = 0;

  readonly #maxGapMs: number;

  /** @param maxGapMs two looks that are further apart than this are not one observation */
  constructor(maxGapMs: number) {
    this.#maxGapMs = maxGapMs;
  }

  /** The row was read at some time between `sentAt` and `heardAt`. */
  see(row: LeadRow, { sentAt, heardAt }: { readonly sentAt: number; readonly heardAt: number }): void {
    const before = this.#row;
    const isUnchanged = before?.epoch === row.epoch && before.beat === row.beat;
    if (!isUnchanged || heardAt - this.#lastHeardAt > this.#maxGapMs) this.#firstHeardAt = heardAt;
    this.#row = row;
    this.#lastSentAt = sentAt;
    this.#lastHeardAt = heardAt;
  }

  /** The session was lost: what was seen before says nothing any more. */
  restart(): void {
    this.#row = undefined;
  }

  /** For how long the row has surely not changed. */
  get unchangedMs(): number {
    return this.#row === undefined ? 0 : Math.max(0, this.#lastSentAt - this.#firstHeardAt);
  }

  /** When the row was first seen as it is; 0: never. */
  get firstSeenAt(): number {
    return this.#row === undefined ? 0 : this.#firstHeardAt;
  }

  /** How long ago the row was first seen as it is. */
  sinceFirst(now: number): number {
    return this.#row === undefined ? 0 : now - this.#firstHeardAt;
  }
}
