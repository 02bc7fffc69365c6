/**
 * How a wrapper is called: by its name and the type of its token, which no other function has. See
 * schema/functions/bridge/bind_handler.sql.
 */
import pg from "pg";

/** The random end of a wrapper's name, which its token's type has, too. */
const randomLength = 16;

/**
 * A call with $1, the token, and further arguments of these types.
 *
 * @param wrapper its name within the schema `hawser_run`
 */
export function wrapperCall(wrapper: string, types: readonly string[]): string {
  const tokenType = `hawser_run.${pg.escapeIdentifier(`token_${wrapper.slice(-randomLength)}`)}`;
  const rest = types.map((type, position) => `$${position + 2}::${type}`);
  return `hawser_run.${pg.escapeIdentifier(wrapper)}(${[`$1::bytea::${tokenType}`, ...rest].join(", ")})`;
}
