/**
 * Decides whether a message that its stream may already have is published again. Pure functions.
 *
 * A stream drops a message whose id it has stored within its duplicate window. It does not drop the message if its
 * server has restarted since then and the stored message was removed. If the relay is not sure that the stream would
 * drop the message, it searches the stream first. If the message is not found, the relay publishes it only if the
 * search proves that it was never stored, since the stream may have removed it. Without that proof, publishing might
 * duplicate the message, so it becomes a dead letter.
 */
import type { OutboxMessage } from "./position.js";

/** Time range in which a message may have been published, by the clock of the relay. */
export interface Doubt {
  /** Start of the range; `-Infinity` if the previous relay may have published it. */
  readonly from: number;
  /** End of the range. */
  readonly until: number;
}

/** Message that may have been published. Times are those of the relay's clock. */
export interface DoubtfulMessage extends Pick<OutboxMessage, "copyOf" | "enqueuedBy"> {
  /** Earliest time at which its stream may have stored it: when it was first enqueued, or due. */
  readonly mayBeThereSince: number;
  /** True if the message was scheduled or replayed. */
  readonly isRepeated: boolean;
}

/** Result of a search of a stream. */
export interface SearchResult {
  /** Ids of the messages that the stream still has from the searched time range. */
  readonly ids: ReadonlySet<string>;
  /** Time since which `ids` is complete, with no message removed since; Infinity if unknown. */
  readonly completeSince: number;
  /** True if the stream removes consumed messages. */
  readonly isConsumed: boolean;
}

/** Time range that a search of the stream must cover. */
export interface SearchRange {
  /** Messages stored since this time must be included. */
  readonly since: number;
  /** The search must start after this time. */
  readonly after: number;
}

/**
 * Range of the search that is needed before publishing; undefined if the stream cannot have the message.
 *
 * @param dueDoubtMs time after the due time from which a scheduled message may already have been published: a failover
 * may have lost the record of the publish
 */
export function requiredSearch(
  message: DoubtfulMessage,
  doubt: Doubt | undefined,
  now: number,
  dueDoubtMs: number,
): SearchRange | undefined {
  const { copyOf, isRepeated, mayBeThereSince, enqueuedBy } = message;
  const mayBeStoredBefore = copyOf !== undefined || (isRepeated && now - mayBeThereSince > dueDoubtMs);
  if (doubt === undefined && !mayBeStoredBefore) return undefined;
  const isOfThisRelay = doubt !== undefined && doubt.from !== Number.NEGATIVE_INFINITY;
  return {
    since: isOfThisRelay && !mayBeStoredBefore ? doubt.from : mayBeThereSince,
    // A replayed message may have been lost from the stream at any time before the replay was requested.
    after: Math.max(doubt?.until ?? Number.NEGATIVE_INFINITY, isRepeated ? enqueuedBy : Number.NEGATIVE_INFINITY),
  };
}

/** Deduplication memory of a stream. */
export interface StreamMemory {
  /** Duplicate window in ms: the time for which the stream drops a message with a known id. */
  readonly windowMs: number;
  /**
   * Time since which the stream certainly knows all ids that it accepted, by the clock of the relay. A restarted server
   * reloads only the ids of the messages that it still has.
   */
  readonly since: number;
}

/**
 * True if the stream, having stored the message before, certainly drops it now. False for replayed messages, since the
 * stream may have lost them.
 */
export function isDroppedByItself(
  { isRepeated }: DoubtfulMessage,
  { since }: SearchRange,
  now: number,
  memory: StreamMemory,
): boolean {
  return !isRepeated && since >= memory.since && now - since <= memory.windowMs / 2;
}

/**
 * True if messages removed from a stream that keeps its messages leave a message in doubt. False for a replayed message
 * that no relay can have published yet: it is to be published again if it was removed.
 */
export function needsGaps({ copyOf }: Pick<DoubtfulMessage, "copyOf">, doubt: Doubt | undefined): boolean {
  return copyOf === undefined || doubt !== undefined;
}

/** Decision after a search of the stream. */
export function verdictOf(
  message: Pick<DoubtfulMessage, "copyOf"> & { readonly messageId: string },
  doubt: Doubt | undefined,
  { since }: SearchRange,
  { ids, completeSince, isConsumed }: SearchResult,
): "known" | "publish" | "undecided" {
  if (ids.has(message.messageId)) return "known";
  const isProved = since >= completeSince || (!isConsumed && !needsGaps(message, doubt));
  return isProved ? "publish" : "undecided";
}
