/**
 * Whether a message is published that its stream may have already. Pure.
 *
 * A stream drops a message that it has already, by its id, for as long as its duplicate window, unless its server has started since
 * then and the message was removed. If the relay is not sure that the stream would drop the message, it looks into the stream
 * first. If the message is not there, the relay publishes it only if the look proves that it never was there: the stream may have
 * removed it. Without that proof publishing might double the message, and the relay makes a dead letter of it.
 */
import type { OutboxMessage } from "./position.js";

/** When a message may have been published, by the clock of the relay. */
export interface Doubt {
  /** Since then; `-Infinity`: by the relay before. */
  readonly from: number;
  /** Until then. */
  readonly until: number;
}

/** A message that may have been published, by the clock of the relay. */
export interface DoubtfulMessage extends Pick<OutboxMessage, "copyOf" | "enqueuedBy"> {
  /** Its stream may have it since then: when it was enqueued first, or was due, at the earliest. */
  readonly mayBeThereSince: number;
  /** It was due later, or is written again. */
  readonly isRepeated: boolean;
}

/** What a look at a stream has found. */
export interface Looked {
  /** Of all messages that it has had since then, as far as it still has them. */
  readonly ids: ReadonlySet<string>;
  /** Time since which `ids` has those of all messages that the stream ever had; Infinity: not known. */
  readonly completeSince: number;
  /** It removes what was consumed. */
  readonly isConsumed: boolean;
}

/** What a look has to cover. */
export interface LookNeeded {
  /** What the stream has stored since then. */
  readonly since: number;
  /** It has to be begun behind that. */
  readonly after: number;
}

/**
 * @param dueDoubtMs a message that is published so much too late may have been published before: a failover may have taken back that
 * it was brought in
 * @returns undefined: its stream cannot have it
 */
export function lookNeeded(
  message: DoubtfulMessage,
  doubt: Doubt | undefined,
  now: number,
  dueDoubtMs: number,
): LookNeeded | undefined {
  const { copyOf, isRepeated, mayBeThereSince, enqueuedBy } = message;
  const isAgain = copyOf !== undefined || (isRepeated && now - mayBeThereSince > dueDoubtMs);
  if (doubt === undefined && !isAgain) return undefined;
  const isOwn = doubt !== undefined && doubt.from !== Number.NEGATIVE_INFINITY;
  return {
    since: isOwn && !isAgain ? doubt.from : mayBeThereSince,
    // What is written again may have got lost until somebody wanted that.
    after: Math.max(doubt?.until ?? Number.NEGATIVE_INFINITY, isRepeated ? enqueuedBy : Number.NEGATIVE_INFINITY),
  };
}

/** Memory that a stream has of ids. */
export interface StreamMemory {
  /** Duplicate window: the time for which the stream drops a message with the id of another one, in milliseconds. */
  readonly windowMs: number;
  /**
   * Time since which the stream surely knows the ids of all messages that it took, by the clock of the relay. A server that starts
   * reads the ids of the messages that are there, and has forgotten those of others.
   */
  readonly since: number;
}

/** Whether a stream surely drops a message by itself that it has had. Not one that is written again: it may have lost that. */
export function isDroppedByItself(
  { isRepeated }: DoubtfulMessage,
  { since }: LookNeeded,
  now: number,
  memory: StreamMemory,
): boolean {
  return !isRepeated && since >= memory.since && now - since <= memory.windowMs / 2;
}

/** Whether the gaps of a stream that keeps its messages matter: not for one that somebody wants in it, and that it has not. */
export function needsGaps({ copyOf }: Pick<DoubtfulMessage, "copyOf">, doubt: Doubt | undefined): boolean {
  return copyOf === undefined || doubt !== undefined;
}

/** What follows from a look. */
export function verdictOf(
  message: Pick<DoubtfulMessage, "copyOf"> & { readonly messageId: string },
  doubt: Doubt | undefined,
  { since }: LookNeeded,
  { ids, completeSince, isConsumed }: Looked,
): "known" | "publish" | "undecided" {
  if (ids.has(message.messageId)) return "known";
  const isProved = since >= completeSince || (!isConsumed && !needsGaps(message, doubt));
  return isProved ? "publish" : "undecided";
}
