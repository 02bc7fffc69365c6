/**
 * What a takeover buffer had no room for: how many messages, by subscription, and when they were received. As long as the
 * leader lives they are not lost. They are if this process takes over before it knows that the leader has done them.
 *
 * Times are kept in spans, so that memory is bounded however many messages there are: one counts as not done until all of
 * its span are known to be.
 */

/** How long a span is, in milliseconds, before spans are joined. */
const spanMs = 100;

/** As many as a takeover buffer of the default time has, and some more. Beyond that the oldest are joined. */
const maxSpans = 256;

interface Span {
  readonly beganAt: number;
  /** When the last of them was received. */
  endedAt: number;
  readonly counts: Map<bigint, number>;
}

/** See above. Times are of `performance.now()`. */
export class MissingMessages {
  /** The oldest first. */
  readonly #spans: Span[] = [];

  /** There was no room for a message. */
  add(receivedAt: number, subscriptions: readonly bigint[]): void {
    let span = this.#spans.at(-1);
    if (span === undefined || receivedAt >= span.beganAt + spanMs) {
      span = { beganAt: receivedAt, endedAt: receivedAt, counts: new Map() };
      this.#spans.push(span);
      if (this.#spans.length > maxSpans) this.#joinOldest();
    }
    // One that is too large is missing before older ones are.
    span.endedAt = Math.max(span.endedAt, receivedAt);
    for (const id of subscriptions) count(span.counts, id, 1);
  }

  /** The leader has done what it received before this, of each subscription. */
  forget(before: (subscription: bigint) => number): void {
    for (const { endedAt, counts } of this.#spans) {
      for (const id of counts.keys()) if (endedAt < before(id)) counts.delete(id);
    }
    const left = this.#spans.filter(({ counts }) => counts.size > 0);
    this.#spans.splice(0, this.#spans.length, ...left);
  }

  /** How many are missing of each subscription; forgets them. */
  take(): Map<bigint, number> {
    const all = new Map<bigint, number>();
    for (const { counts } of this.#spans.splice(0)) {
      for (const [id, more] of counts) count(all, id, more);
    }
    return all;
  }

  #joinOldest(): void {
    const [oldest, next] = this.#spans.splice(0, 2) as [Span, Span];
    for (const [id, more] of next.counts) count(oldest.counts, id, more);
    this.#spans.unshift({ ...oldest, endedAt: Math.max(oldest.endedAt, next.endedAt) });
  }
}

function count(counts: Map<bigint, number>, id: bigint, more: number): void {
  counts.set(id, (counts.get(id) ?? 0) + more);
}
