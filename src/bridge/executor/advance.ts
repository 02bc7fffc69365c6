/**
 * What the transaction of a batch reads and writes of what is done. See schema/functions/bridge/mark_handled.sql.
 */
import type { StreamTerms } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import { includes, joined, multirangeOf, rangesOf } from "../ranges.js";
import { tokenSql } from "./token.js";

/** Columns of the beginning of a transaction. */
export interface PositionState {
  /** Null: what was read before may not be committed any more. */
  readonly doneTo: bigint | null;
  /** Beyond that, as an int8multirange. */
  readonly done: string | null;
}

/** What {@link PositionState} is read from, without parameters. */
export function positionSql(
  id: bigint,
  stream: StreamTerms | undefined,
): { readonly columns: string; readonly from: string } {
  if (stream === undefined) return { columns: "", from: "" };
  return {
    columns: `, p.done_to AS "doneTo", p.done`,
    from: ` CROSS JOIN hawser.stream_position(${id}, ${stream.generation}) AS p`,
  };
}

/** Those that are not done. */
export function undone(
  messages: readonly InboundMessage[],
  { doneTo, done }: PositionState,
): readonly InboundMessage[] {
  const ranges = rangesOf(done ?? "");
  const isDone = (number: number): boolean => number <= Number(doneTo) || includes(ranges, number);
  return messages.filter(({ place }) => place === undefined || !isDone(place.number));
}

/** Parameters for {@link advanceValues}, from `$first` on. */
export function advanceParameters(first: number): string {
  const types = ["bigint", "pg_catalog.int8multirange", "bigint", "bigint", "bigint", "bigint"];
  return types.map((type, nth) => `$${first + nth}::${type}`).join(", ");
}

/** Writes that messages are done, with the values $1, the handler, $2, the proof of its token, and {@link markValues}. */
export const markSql = `SELECT m.state FROM hawser.mark_handled($1::bigint, ${tokenSql("$1", "$2")}, $3::bigint, $4::bigint[], ${advanceParameters(5)}) AS m`;

/** Of {@link markSql}. @param letter the dead letter that is called again @param saved numbers of saved messages */
export function markValues(
  letter: bigint | undefined,
  saved: readonly bigint[],
  stream: StreamTerms | undefined,
  messages: readonly InboundMessage[],
): unknown[] {
  return [
    letter?.toString() ?? null,
    saved.length > 0 ? `{${saved.join(",")}}` : null,
    ...advanceValues(stream, messages),
  ];
}

/** Of hawser.mark_handled, from the generation on; of messages that are of no stream, nothing. */
export function advanceValues(terms: StreamTerms | undefined, messages: readonly InboundMessage[]): unknown[] {
  if (terms === undefined) return [null, null, null, null, null, null];
  const places = messages.flatMap(({ place }) => place ?? []);
  const ranges = joined(places.flatMap(({ covers }) => covers));
  const missing = places.reduce((sum, place) => sum + place.missing, 0);
  const last = places.at(-1);
  const lag = Math.max(0, terms.lag(messages.length));
  return [String(terms.generation), multirangeOf(ranges), last?.number ?? 0, String(last?.at ?? 0n), lag, missing];
}
