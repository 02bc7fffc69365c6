/**
 * How a wrapper is called: by its name and the type of its token, which no other function has. See
 * schema/functions/bridge/bind_handler.sql.
 *
 * Its owner can replace it, also by one that runs as whoever calls it: as our login. So it is looked at before it is called
 * and afterwards, in one transaction.
 */
import pg from "pg";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

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
export interface WrapperLook {
  /** Null: it is gone, another one's, or does not run as its owner any more. */
  readonly version: string | null;
  /** Its owner has one of that name. */
  readonly isThere: boolean;
}

/** Columns of a look at the wrapper, as {@link WrapperLook}; without parameters. */
export function wrapperLook(wrapper: Wrapper): string {
  const named = `p.pronamespace = to_regnamespace('hawser_run') AND p.proname = ${pg.escapeLiteral(wrapper.wrapper)}`;
  const owned = `pg_get_userbyid(p.proowner) = ${pg.escapeLiteral(wrapper.runAs)}`;
  return `${versionOf(wrapper)} AS version, EXISTS (SELECT FROM pg_proc AS p WHERE ${named} AND ${owned}) AS "isThere"`;
}

/**
 * A statement that calls it with $1, the token, and further arguments of these types. Its row has the `result`, and the
 * `version` after the call.
 */
export function wrapperCall(wrapper: Wrapper, types: readonly string[]): string {
  const rest = types.map((type, position) => `$${position + 2}::${type}`);
  const values = [`$1::bytea::${tokenType(wrapper)}`, ...rest].join(", ");
  const call = `hawser_run.${pg.escapeIdentifier(wrapper.wrapper)}(${values})`;
  // The called one first: nothing of it is moved out of the inner query.
  return `SELECT called.result, ${versionOf(wrapper)} AS version FROM (SELECT ${call} AS result OFFSET 0) AS called`;
}

/** Of the type of its token, within the schema `hawser_run`. */
function tokenTypeName(wrapper: string): string {
  return `token_${wrapper.slice(-bridgeConstants.wrapperRandomLength)}`;
}

const missing = /^(42883|42501|42704|3F000)$/;

/** Whether an error says that the wrapper itself is not there, or may not be called. */
export function isAboutWrapper(
  error: { readonly code: string; readonly message: string },
  { wrapper }: Wrapper,
): boolean {
  const { code, message } = error;
  return missing.test(code) && (message.includes(wrapper) || message.includes(tokenTypeName(wrapper)));
}

function tokenType({ wrapper }: Wrapper): string {
  return `hawser_run.${pg.escapeIdentifier(tokenTypeName(wrapper))}`;
}

function versionOf({ wrapper, runAs }: Wrapper): string {
  return `(SELECT v.version FROM hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS v)`;
}
