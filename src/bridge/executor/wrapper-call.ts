/**
 * How a wrapper is called: by its name and the type of its token, which no other function has. See
 * schema/functions/bridge/bind_handler.sql.
 *
 * Its owner can replace it, also by one that runs as whoever calls it: as our login. So it is looked at before it is called
 * and afterwards, in one transaction.
 */
import pg from "pg";

/** The random end of a wrapper's name, which its token's type has, too. */
const randomLength = 16;

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
  readonly isThere: boolean;
}

/** Columns of a look at the wrapper, as {@link WrapperLook}; without parameters. */
export function wrapperLook(wrapper: Wrapper): string {
  return `${versionOf(wrapper)} AS version, to_regtype(${pg.escapeLiteral(tokenType(wrapper))}) IS NOT NULL AS "isThere"`;
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

function tokenType({ wrapper }: Wrapper): string {
  return `hawser_run.${pg.escapeIdentifier(`token_${wrapper.slice(-randomLength)}`)}`;
}

function versionOf({ wrapper, runAs }: Wrapper): string {
  return `(SELECT v.version FROM hawser.wrapper_version(${pg.escapeLiteral(wrapper)}, ${pg.escapeLiteral(runAs)}) AS v)`;
}
