/**
 * A place in a channel: the sender's epoch and the message's number within it, from 1. Numbers are contiguous within an
 * epoch and never withdrawn once given. Both stay below 2^53.
 */
export interface Position {
  readonly epoch: number;
  readonly number: number;
}

/** Before anything that was ever sent. */
export const origin: Position = { epoch: 0, number: 0 };

/** Negative when `a` comes before `b`, positive when after, 0 when they are the same place. */
export function comparePositions(a: Position, b: Position): number {
  return a.epoch === b.epoch ? a.number - b.number : a.epoch - b.epoch;
}
