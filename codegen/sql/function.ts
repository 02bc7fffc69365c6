import { typeName } from "../model/columns.js";
import type { SqlFunction } from "../model/functions.js";
import { readBody, type SqlConstants } from "./body.js";
import { functionSettings } from "./function-settings.js";
import { limitStatements } from "./limits.js";
import { dollarQuoted, sqlString } from "./literal.js";

/**
 * CREATE FUNCTION with the body of the file that the spec names, and {@link functionSettings}, whether it is
 * SECURITY DEFINER or not.
 *
 * @throws SpecError if the body cannot be read or is not a PL/pgSQL block.
 */
export function functionStatements(fn: SqlFunction, constants: SqlConstants): string {
  const security = fn.securityDefiner ? "SECURITY DEFINER" : "SECURITY INVOKER";
  const outputs = fn.results.map((column) => `${column.name} ${typeName(column)}`);
  const inputs = fn.parameters.map(
    ({ column }) =>
      `${column.name} ${typeName(column)}${fn.optionalDefaults && column.nullable ? " DEFAULT NULL" : ""}`,
  );
  const create = `CREATE OR REPLACE FUNCTION hawser.${fn.name}`;
  const signature = fn.returnsSet
    ? [...parenthesised(create, inputs), ...parenthesised("RETURNS TABLE ", outputs)]
    : parenthesised(create, [...inputs, ...outputs.map((output) => `OUT ${output}`)]);
  const comment =
    fn.comment === "" ? "" : `COMMENT ON FUNCTION ${functionSignature(fn)} IS ${sqlString(fn.comment)};\n`;
  return [
    ...signature,
    `LANGUAGE plpgsql ${fn.constant ? "IMMUTABLE" : fn.readsOnly ? "STABLE" : "VOLATILE"} ${security}`,
    // The caller's session may have any setting. Rows that row security hides must not count as missing.
    ...functionSettings([...(fn.constant ? [] : ["row_security = off"]), ...fn.settings]),
    `AS ${dollarQuoted("function", withLimits(fn, readBody(fn.method, fn.bodyFile, constants)))};`,
    comment,
  ].join("\n");
}

/** Body that starts with the checks of the isolation level, and of the arguments that roles pass. */
function withLimits(fn: SqlFunction, body: string): string {
  const [text] = fn.parameters.filter(({ column }) => column.type === "text");
  const limits =
    fn.execute.length === 0
      ? []
      : [
          ...(fn.securityDefiner && text !== undefined ? refuseCollations(fn.name, text.column.name) : []),
          ...limitStatements(
            `hawser.${fn.name}`,
            fn.parameters.map(({ column: { name, type, repeated, nullable, rules } }) => ({
              name,
              expression: name,
              sqlType: type,
              repeated,
              rules,
              wholly: true,
              required: !nullable,
            })),
          ),
        ];
  return withStatementsBefore([...(fn.needsReadCommitted ? refuseOtherIsolation(fn.name) : []), ...limits], body);
}

function refuseOtherIsolation(name: string): string[] {
  return [
    "  IF current_setting('transaction_isolation') <> 'read committed' THEN",
    `    RAISE EXCEPTION 'hawser.${name} needs READ COMMITTED, not %', current_setting('transaction_isolation')`,
    "      USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED';",
    "  END IF;",
  ];
}

/**
 * Refuses a nondeterministic collation, under which different texts are equal. A function compares its parameters and
 * variables by the collation of its arguments, and a role can create a collation under which the names of others equal
 * its own.
 */
function refuseCollations(name: string, text: string): string[] {
  const collation = `pg_collation_for(${text}) COLLATE "C"`;
  return [
    // The common case is the default collation, which needs no catalog lookup.
    `  IF ${collation} <> '"default"'`,
    `    AND NOT (SELECT c.collisdeterministic FROM pg_collation AS c WHERE c.oid = (${collation})::regcollation)`,
    "  THEN",
    "    RAISE EXCEPTION USING",
    "      ERRCODE = hawser.error_sqlstate('invalid_argument'),",
    `      MESSAGE = format('hawser.${name}: the arguments have the collation %s, and must have a deterministic one', ${collation}),`,
    "      HINT = 'Write COLLATE \"default\" behind the argument.';",
    "  END IF;",
  ];
}

/**
 * Inserts statements before a body. They are in an enclosing block, because the declarations of the body may already use
 * the arguments.
 */
export function withStatementsBefore(statements: readonly string[], body: string): string {
  if (statements.length === 0) return body;
  const [options] = /^(#.*\n)*/.exec(body)!;
  return `${options}${["BEGIN", ...statements, `${body.slice(options.length).trimEnd()};`, "END", ""].join("\n")}`;
}

/** Function as GRANT and COMMENT name it: `hawser.id_of_topic(text)`. */
export function functionSignature(fn: SqlFunction): string {
  return `hawser.${fn.name}(${fn.parameters.map(({ column }) => typeName(column)).join(", ")})`;
}

function parenthesised(before: string, items: readonly string[]): string[] {
  return items.length === 0 ? [`${before}()`] : [`${before}(`, items.map((item) => `  ${item}`).join(",\n"), ")"];
}
