/**
 * How a wrapper is called: by its name and a type of its own, which no other function has. See
 * schema/functions/bridge/bind_handler.sql.
 *
 * Its owner can replace it and its type, also by one that runs as its caller: as our login. So it is checked before it
 * is called and afterwards, in one transaction; and once more within the statement that calls it, when that is resolved and
 * nothing of it has been evaluated. Of the owner's a call evaluates nothing but the wrapper: NULL of a type that is no domain,
 * and arguments of Postgres's own types. They come out of a query that is not merged with the outer one, so that the planner
 * has no constants to compute a call of. One thing is left: the planner puts the body of an SQL function in the place of its
 * call. Of one that was made between the check and the call, it computes what is constant, as our login; then the version is
 * another one, and the transaction is rolled back.
 */
import pg from "pg";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { Logger } from "../../runtime/index.js";
import { danglesSql } from "../../store/index.js";
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { ExecutorPool } from "./executor-pool.js";
import { tokenSql } from "./token.js";
import { type Ending, inTransaction } from "./transaction.js";

/** SQLSTATE external_routine_invocation_exception: a wrapper is not the one that was made. */
export const wrapperChanged = "39000";

/** A wrapper as it is known. */
interface Wrapper {
  /** Its name within the schema `hawser_run`. */
  readonly wrapper: string;
  /** Its owner. */
  readonly runAs: string;
}

/** What it is before it is called. */
export interface WrapperVersion {
  /** Null: it is gone, another one's, or not as it was made any more. */
  readonly version: string | null;
  /** This login may call it. Null: it has no version. */
  readonly mayCall: boolean | null;
}

/** What it is, and why it has no version: that is asked only then, because Postgres plans the question each time anew. */
export interface WrapperState extends WrapperVersion {
  /** Its owner has one of that name. */
  readonly isThere: boolean;
}

/** Columns of a check of the wrapper, as {@link WrapperVersion}, from {@link wrapperVersionFrom}. */
export const wrapperVersionColumns = `w.version, has_function_privilege(split_part(w.version, ':', 1)::oid, 'EXECUTE') AS "mayCall"`;

/** What follows FROM for {@link wrapperVersionColumns}; without parameters. */
export function wrapperVersionFrom({ wrapper, runAs }: Wrapper): string {
  return `hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS w`;
}

/** A check of the wrapper, as {@link WrapperState}; without parameters. */
export function wrapperStateSql(wrapper: Wrapper): string {
  const own =
    `FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('hawser_run') AND p.proname = ${pg.escapeLiteral(wrapper.wrapper)} ` +
    `AND pg_get_userbyid(p.proowner) = ${pg.escapeLiteral(wrapper.runAs)}`;
  return `SELECT ${wrapperVersionColumns}, EXISTS (SELECT ${own} AND NOT ${danglesSql("p.oid")}) AS "isThere" FROM ${wrapperVersionFrom(wrapper)}`;
}

/**
 * A statement that calls it with $1, its number, $2, the proof of its token, and further arguments of these types; after these,
 * the version that it must have. Its row has the `result`, and the `version` after the call. No row: it was changed before the
 * call.
 *
 * @param result further columns, which may name `called.result`
 */
export function wrapperCall(wrapper: Wrapper, types: readonly string[], result = "called.result"): string {
  const given = [tokenSql("$1", "$2"), ...types.map((type, nth) => `$${nth + 3}::${type}`)];
  const columns = given.map((value, nth) => `${value} AS a${nth}`).join(", ");
  const passed = [`NULL::${ownType(wrapper)}`, ...given.map((_, nth) => `a.a${nth}`)].join(", ");
  const call = `hawser_run.${pg.escapeIdentifier(wrapper.wrapper)}(${passed})`;
  const guarded = `SELECT ${columns} WHERE ${versionOf(wrapper)} = $${types.length + 3}::pg_catalog.text OFFSET 0`;
  // The called one before the version: nothing of it is moved out of the inner query. And behind LATERAL no aggregate can be in
  // its place, which would have something to compute of no rows, too.
  const called = `SELECT ${call} AS result LIMIT 1 OFFSET 0`;
  // Its token may be another one since the transaction began.
  const proven = `SELECT g.* FROM (${guarded}) AS g WHERE g.a0 IS NOT NULL OFFSET 0`;
  return `SELECT ${result}, ${versionOf(wrapper)} AS version FROM (${proven}) AS a CROSS JOIN LATERAL (${called}) AS called`;
}

/**
 * Codes of an error that may be about the wrapper itself: it is not there, or may not be called. A function can say the same of
 * whatever it likes, so the next check of the wrapper has to tell.
 */
const missing = /^(42883|42501|42704|3F000)$/;

function ownType({ wrapper }: Wrapper): string {
  return `hawser_run.${pg.escapeIdentifier(`token_${wrapper.slice(-bridgeConstants.wrapperRandomLength)}`)}`;
}

function versionOf({ wrapper, runAs }: Wrapper): string {
  return `(SELECT v.version FROM hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS v)`;
}

/**
 * Checks the wrapper in the catalogs again if an ending may be about it: the words of an error can be the function's own. Does
 * not reject.
 *
 * @returns true if it cannot be called as it is now
 */
export async function isAboutWrapper(
  ending: Ending<unknown>,
  { wrapper, pool, timeoutMs, logger }: AskedWrapper,
): Promise<boolean> {
  if (ending.kind !== "failed" || !missing.test(ending.code)) return false;
  const now = await inTransaction<WrapperState | undefined, WrapperState>(pool, logger, {
    runAs: wrapper.runAs,
    timeoutMs,
    first: wrapperStateSql(wrapper),
    run: async (_session, [state]) => ({ value: state, commit: false }),
  });
  return now.kind === "given_up" && (now.value?.version == null || !now.value.mayCall);
}

/** A wrapper, and where it is checked. */
export interface AskedWrapper {
  readonly wrapper: Wrapper;
  readonly pool: ExecutorPool;
  readonly timeoutMs: number;
  readonly logger: Logger;
}

/** The arguments of a wrapper, behind the token. */
export type PackedMessages = [
  payloads: Buffer,
  offsets: string,
  lengths: string,
  subjects: string[] | null,
  headers: (string | null)[] | null,
  ids: string,
];

/**
 * Packs them. Offsets are those of SQL, the first byte being 1.
 *
 * @param context what the ids begin with
 */
export function packed(
  subscription: Subscription,
  messages: readonly InboundMessage[],
  context: string,
): PackedMessages {
  return [
    ...packPayloads(messages),
    subscription.takesSubject ? messages.map(({ subject }) => subject) : null,
    subscription.takesHeaders ? messages.map(({ headers }) => headers ?? null) : null,
    // Made of letters, digits, ".", "_" and "-", which need no quotes in an array.
    `{${messages.map(({ id }) => context + id).join(",")}}`,
  ];
}

/** All payloads in one, with where each begins (in SQL the first byte is 1) and how long it is: an array would be written out and quoted. */
export function packPayloads(
  messages: readonly InboundMessage[],
): [payloads: Buffer, offsets: string, lengths: string] {
  const payloads = messages.map(({ payload }) => payload);
  const offsets: number[] = [];
  let at = 1;
  for (const { length } of payloads) {
    offsets.push(at);
    at += length;
  }
  return [
    Buffer.concat(payloads, at - 1),
    `{${offsets.join(",")}}`,
    `{${payloads.map(({ length }) => length).join(",")}}`,
  ];
}
