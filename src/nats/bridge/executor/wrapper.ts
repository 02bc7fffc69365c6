/**
 * Safe calls of wrappers. A wrapper is called by its name and with a parameter type that no other function has. See
 * schema/functions/bridge/bind_handler.sql.
 *
 * The owner of a wrapper can replace the wrapper and its type, also by a SECURITY INVOKER function, which would run
 * with the rights of the executor's login. So the wrapper is checked before and after the call in the same transaction,
 * and once more within the calling statement, after its names are resolved and before anything is evaluated. Of the
 * owner's objects, the statement evaluates nothing but the wrapper: its arguments are a NULL of a type that is no
 * domain, and values of built-in types. The arguments come from a subquery that the planner does not merge into the
 * outer query, so the planner has no constants with which it could evaluate the call.
 *
 * A gap remains, because the planner inlines SQL functions. If the owner replaces the wrapper by an SQL function
 * between check and call, the planner evaluates constant parts of that function with the rights of the login. Then the
 * version differs, and the transaction is rolled back.
 */
import pg from "pg";
import { bridgeConstants } from "../../../../generated/ts/settings/nats.js";
import { traceConstants } from "../../../../generated/ts/settings/queue.js";
import { type Logger, sharedTrace, type TraceContext } from "../../../foundation/runtime/index.js";
import { danglesSql } from "../../../operating/installation/index.js";
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";
import type { ExecutorPool } from "./executor-pool.js";
import { tokenSql } from "./token.js";
import { type Ending, inTransaction } from "./transaction.js";

/** SQLSTATE external_routine_invocation_exception: the wrapper is not the one that Hawser made. */
export const wrapperChanged = "39000";

/** Name and owner of a wrapper. */
interface Wrapper {
  /** Name within the schema `hawser_run`. */
  readonly wrapper: string;
  /** Role that owns the wrapper. */
  readonly runAs: string;
}

/** State of a wrapper before its call. */
export interface WrapperVersion {
  /** Null if the wrapper is missing, changed, or owned by another role. */
  readonly version: string | null;
  /** True if the executor's login may call it. Null without a version. */
  readonly mayCall: boolean | null;
}

/**
 * State of a wrapper with the reason why it has no version. Read only if it has none: Postgres plans the query each
 * time.
 */
export interface WrapperState extends WrapperVersion {
  /** True if the role owns a function with the name of the wrapper. */
  readonly exists: boolean;
}

/** Columns of a {@link WrapperVersion}, from {@link wrapperVersionFrom}. */
export const wrapperVersionColumns = `w.version, has_function_privilege(split_part(w.version, ':', 1)::oid, 'EXECUTE') AS "mayCall"`;

/** FROM item of {@link wrapperVersionColumns}; without parameters. */
export function wrapperVersionFrom({ wrapper, runAs }: Wrapper): string {
  return `hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS w`;
}

/** Query of a {@link WrapperState}; without parameters. */
export function wrapperStateSql(wrapper: Wrapper): string {
  const own =
    `FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('hawser_run') AND p.proname = ${pg.escapeLiteral(wrapper.wrapper)} ` +
    `AND pg_get_userbyid(p.proowner) = ${pg.escapeLiteral(wrapper.runAs)}`;
  return `SELECT ${wrapperVersionColumns}, EXISTS (SELECT ${own} AND NOT ${danglesSql("p.oid")}) AS "exists" FROM ${wrapperVersionFrom(wrapper)}`;
}

/**
 * Statement that calls a wrapper. Parameters: $1 is the id of the binding, $2 the proof of its token, then arguments of
 * the given types, then the required version; with `setsTrace`, {@link traceValues} follow. Returns a row with the
 * `result`, and with the `version` after the call; no row if the wrapper changed before the call.
 *
 * @param result result columns, which may refer to `called.result`
 */
export function wrapperCall(
  wrapper: Wrapper,
  types: readonly string[],
  { result = "called.result", setsTrace = false }: { readonly result?: string; readonly setsTrace?: boolean } = {},
): string {
  const given = [tokenSql("$1", "$2"), ...types.map((type, nth) => `$${nth + 3}::${type}`)];
  const columns = given.map((value, nth) => `${value} AS a${nth}`).join(", ");
  const passed = [`NULL::${ownType(wrapper)}`, ...given.map((_, nth) => `a.a${nth}`)].join(", ");
  const call = `hawser_run.${pg.escapeIdentifier(wrapper.wrapper)}(${passed})`;
  // Volatile, so it is computed although nothing uses it, and before the call.
  const settings = (setsTrace ? traceSettings : [])
    .map(
      (name, nth) => `, pg_catalog.set_config('${name}', $${types.length + 4 + nth}::pg_catalog.text, true) AS s${nth}`,
    )
    .join("");
  const guarded = `SELECT ${columns}${settings} WHERE ${versionOf(wrapper)} = $${types.length + 3}::pg_catalog.text OFFSET 0`;
  // OFFSET 0 keeps the planner from moving parts of the call out of the subquery, so the version is read after the
  // call. If an aggregate has taken the place of the wrapper, Postgres refuses the statement, because the arguments
  // come from outside of LATERAL; without LATERAL, it would compute the aggregate even for no rows.
  const called = `SELECT ${call} AS result LIMIT 1 OFFSET 0`;
  // The token is NULL if it has changed since the start of the transaction.
  const proven = `SELECT g.* FROM (${guarded}) AS g WHERE g.a0 IS NOT NULL OFFSET 0`;
  return `SELECT ${result}, ${versionOf(wrapper)} AS version FROM (${proven}) AS a CROSS JOIN LATERAL (${called}) AS called`;
}

const { parentSetting, stateSetting, parentsSetting, statesSetting } = traceConstants;

/** Settings with the traces of the messages of a call: what they share, and those of each. */
const traceSettings = [parentSetting, stateSetting, parentsSetting, statesSetting];

/**
 * Values of the settings with the traces of messages, in the order of the messages. A wrapper sets the trace of each
 * message before it calls the function for it. A function of arrays and a responder have the trace that
 * the messages share.
 */
export function traceValues(traces: readonly (TraceContext | undefined)[]): string[] {
  const shared = sharedTrace(traces);
  const lines = (part: keyof TraceContext): string => traces.map((trace) => trace?.[part] ?? "").join("\n");
  return [shared?.parent ?? "", shared?.state ?? "", lines("parent"), lines("state")];
}

/**
 * SQLSTATEs that may mean that the wrapper itself is missing or may not be called. A function can raise them too, so
 * the wrapper must be checked.
 */
const maybeMissing = /^(42883|42501|42704|3F000)$/;

function ownType({ wrapper }: Wrapper): string {
  return `hawser_run.${pg.escapeIdentifier(`token_${wrapper.slice(-bridgeConstants.wrapperRandomLength)}`)}`;
}

function versionOf({ wrapper, runAs }: Wrapper): string {
  return `(SELECT v.version FROM hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS v)`;
}

/**
 * Checks the wrapper in the catalogs if the ending may concern it. The error alone does not show that, because a
 * function can raise it, too. Does not reject.
 *
 * @returns true if the wrapper cannot be called now
 */
export async function isAboutWrapper(
  ending: Ending<unknown>,
  { wrapper, pool, timeoutMs, logger }: WrapperCheck,
): Promise<boolean> {
  if (ending.kind !== "failed" || !maybeMissing.test(ending.code)) return false;
  const now = await inTransaction<WrapperState | undefined, WrapperState>(pool, logger, {
    runAs: wrapper.runAs,
    timeoutMs,
    first: wrapperStateSql(wrapper),
    run: async (_session, [state]) => ({ value: state, commit: false }),
  });
  return now.kind === "rolled_back" && (now.value?.version == null || !now.value.mayCall);
}

/** A wrapper, and the pool to check it with. */
export interface WrapperCheck {
  readonly wrapper: Wrapper;
  readonly pool: ExecutorPool;
  readonly timeoutMs: number;
  readonly logger: Logger;
}

/** Arguments of a wrapper, after the token. */
export type PackedMessages = [
  payloads: Buffer,
  offsets: string,
  lengths: string,
  subjects: string[] | null,
  headers: (string | null)[] | null,
  ids: string,
];

/**
 * Packs messages into arguments. Offsets start at 1, as in SQL.
 *
 * @param context prefix of the ids
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
    // Ids consist of letters, digits, ".", "_" and "-", which need no quotes in an array literal.
    `{${messages.map(({ id }) => context + id).join(",")}}`,
  ];
}

/**
 * Concatenates payloads, with the offset (from 1) and length of each. Faster than an array of bytea, which would be
 * encoded and quoted as text.
 */
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
