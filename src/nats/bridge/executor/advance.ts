/**
 * Stream positions in the transaction of a batch: SQL that reads a position and marks messages as done. See
 * schema/functions/bridge/mark_handled.sql.
 */
import type { StreamTerms } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import { includes, joined, multirangeOf, rangesOf } from "../ranges.js";
import { tokenSql } from "./token.js";

/** Stream position, from columns of the first statement of a transaction. */
export interface PositionState {
  /** Number up to which all messages are done. Null if the subscription has another generation by now. */
  readonly doneTo: bigint | null;
  /** Messages beyond `doneTo` that are done, as an int8multirange. */
  readonly done: string | null;
}

/** SQL that selects a {@link PositionState}: columns and a FROM item, without placeholders. Empty without a stream. */
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

/** Messages that are not done according to the position. */
export function notDone(
  messages: readonly InboundMessage[],
  { doneTo, done }: PositionState,
): readonly InboundMessage[] {
  const ranges = rangesOf(done ?? "");
  const isDone = (number: number): boolean => number <= Number(doneTo) || includes(ranges, number);
  return messages.filter(({ place }) => place === undefined || !isDone(place.number));
}

/** Placeholders for {@link advanceValues} with their types; `$first` is the first of them. */
export function advanceParameters(first: number): string {
  const types = ["bigint", "pg_catalog.int8multirange", "bigint", "bigint", "bigint", "bigint"];
  return types.map((type, nth) => `$${first + nth}::${type}`).join(", ");
}

/**
 * Statement that marks messages as done. $1 is the id of the binding, $2 the proof of its token; {@link markValues}
 * follow.
 */
export const markSql = `SELECT m.state FROM hawser.mark_handled($1::bigint, ${tokenSql("$1", "$2")}, $3::bigint[], $4::bigint[], ${advanceParameters(5)}) AS m`;

/**
 * Values of {@link markSql} from $3 on.
 *
 * @param queued ids of messages of the queue, to be deleted
 * @param saved ids of saved messages to be deleted
 */
export function markValues(
  queued: readonly bigint[],
  saved: readonly bigint[],
  stream: StreamTerms | undefined,
  messages: readonly InboundMessage[],
): unknown[] {
  return [`{${queued.join(",")}}`, `{${saved.join(",")}}`, ...advanceValues(stream, messages)];
}

/** Arguments of hawser.mark_handled from the generation on; all null for messages that are not from a stream. */
export function advanceValues(terms: StreamTerms | undefined, messages: readonly InboundMessage[]): unknown[] {
  if (terms === undefined) return [null, null, null, null, null, null];
  const places = messages.flatMap(({ place }) => place ?? []);
  const ranges = joined(places.flatMap(({ covers }) => covers));
  const missing = places.reduce((sum, place) => sum + place.missing, 0);
  const last = places.at(-1);
  const lag = Math.max(0, terms.lag(messages.length));
  return [String(terms.generation), multirangeOf(ranges), last?.number ?? 0, String(last?.at ?? 0n), lag, missing];
}
