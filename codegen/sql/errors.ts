import type { ErrorTable } from "../model/errors.js";
import { functionSettings } from "./function-settings.js";
import { dollarQuoted, sqlString } from "./literal.js";

/** Functions as GRANT names them. */
export const errorFunctionSignatures = ["hawser.error_codes()", "hawser.error_sqlstate(text)"];

/**
 * Error table in SQL: `hawser.error_codes()` lists the errors, `hawser.error_sqlstate(code)` returns the SQLSTATE for
 * RAISE.
 */
export function errorFunctions(tables: readonly ErrorTable[]): string {
  const errors = tables.flatMap((table) => table.errors);
  const rows = errors.map(
    (error) =>
      `  (${[
        sqlString(error.code),
        error.wireCode,
        sqlString(error.sqlstate),
        error.exitStatus,
        error.retryable,
        sqlString(error.summary),
        sqlString(error.remedy),
      ].join(", ")})`,
  );
  const cases = errors.map((error) => `  WHEN ${sqlString(error.code)} THEN ${sqlString(error.sqlstate)}`);
  // The planner copies the argument into each comparison, so a long argument would use all memory. One character more
  // than the longest code is compared, so that no truncated text becomes a code.
  const comparedCharacters = Math.max(...errors.map(({ code }) => code.length)) + 1;
  return [
    "CREATE OR REPLACE FUNCTION hawser.error_codes()",
    "RETURNS TABLE (",
    "  code text,",
    "  wire_code integer,",
    "  sqlstate text,",
    "  exit_status integer,",
    "  retryable boolean,",
    "  summary text,",
    "  remedy text",
    ")",
    "LANGUAGE sql IMMUTABLE PARALLEL SAFE",
    ...functionSettings(),
    `AS ${dollarQuoted("function", `VALUES\n${rows.join(",\n")}`)};`,
    "COMMENT ON FUNCTION hawser.error_codes() IS 'Every error of Hawser.';",
    "",
    "CREATE OR REPLACE FUNCTION hawser.error_sqlstate(p_code text)",
    "RETURNS text",
    "LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE",
    ...functionSettings(),
    `AS ${dollarQuoted("function", `SELECT CASE left(p_code, ${comparedCharacters})\n${cases.join("\n")}\nEND`)};`,
    "COMMENT ON FUNCTION hawser.error_sqlstate(text) IS 'The SQLSTATE of an error code; NULL for an unknown one.';",
    "",
  ].join("\n");
}
