/**
 * Which dead letters are meant.
 */
import { checkDeadLetterId, checkDeadLetterOrigin } from "../../generated/ts/rules/peer/catalog.js";
import { StoreError } from "../errors/index.js";

/** Which dead letters are meant: those that pass all that is given. Nothing given: all. */
export interface DeadLetterFilter {
  readonly ids?: readonly number[] | undefined;
  /** `peer` or `subscription`. */
  readonly origin?: string | undefined;
  /** The composite of the channel that it was sent on, or the subscribed function. */
  readonly source?: string | undefined;
  /** The topic, or the subject. */
  readonly topic?: string | undefined;
  readonly errorCode?: string | undefined;
  /** Given up before this moment. */
  readonly before?: Date | undefined;
  /** Given up at this moment or after it. */
  readonly after?: Date | undefined;
  /** The oldest so many of them. Default: no limit. */
  readonly limit?: number | undefined;
}

/**
 * The filter as an SQL condition over `dead_letters AS d`, and its parameters from `$1` on. The limit is not part of it.
 *
 * @param source what stands for the source, as SQL
 * @throws StoreError `invalid_argument` for a value that no dead letter can have
 */
export function conditionsOf(
  filter: DeadLetterFilter,
  source: string,
): { readonly where: string; readonly values: unknown[] } {
  check(filter);
  const values: unknown[] = [];
  const conditions: string[] = [];
  const add = (condition: (parameter: string) => string, value: unknown): void => {
    if (value === undefined) return;
    values.push(value);
    conditions.push(condition(`$${values.length}`));
  };
  add((parameter) => `d.id = ANY (${parameter}::bigint[])`, filter.ids?.map(String));
  add((parameter) => `d.origin = ${parameter}`, filter.origin);
  add((parameter) => `${source} = ${parameter}`, filter.source);
  add((parameter) => `d.topic = ${parameter}`, filter.topic);
  add((parameter) => `d.error_code = ${parameter}`, filter.errorCode);
  add((parameter) => `d.created_at < ${parameter}::timestamptz`, filter.before?.toISOString());
  add((parameter) => `d.created_at >= ${parameter}::timestamptz`, filter.after?.toISOString());
  return { where: conditions.length === 0 ? "true" : conditions.join(" AND "), values };
}

function check({ ids, origin, before, after, limit }: DeadLetterFilter): void {
  for (const id of ids ?? []) {
    if (!Number.isSafeInteger(id) || id < 1 || checkDeadLetterId(BigInt(id)) !== undefined) {
      throw new StoreError("invalid_argument", `the dead letter ${id}: an id is a positive integer`);
    }
  }
  const bad = origin === undefined ? undefined : checkDeadLetterOrigin(origin);
  if (bad !== undefined) throw new StoreError("invalid_argument", `origin ${bad.value}: ${bad.rule}. ${bad.remedy}`);
  for (const [name, moment] of Object.entries({ before, after })) {
    if (moment !== undefined && Number.isNaN(moment.getTime())) {
      throw new StoreError("invalid_argument", `${name} is no moment; give a date such as 2030-01-31T12:00:00Z`);
    }
  }
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 1)) {
    throw new StoreError("invalid_argument", `limit ${limit}: must be a positive integer`);
  }
}
