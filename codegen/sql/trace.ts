/**
 * SQL condition under which a message may belong to a trace, so that `hawser.with_trace` has to be called. It is part of
 * the first condition of the functions that enqueue, which have no time for a call. A long statement whose comment has no
 * context is recognized without a copy of it; see schema/functions/queue/with_trace.sql.
 */
export function tracedCondition(constants: ReadonlyMap<string, string>): string {
  const constant = (name: string): string => {
    const value = constants.get(`TraceConstants.${name}`);
    if (value === undefined) throw new Error(`the spec has no fixed setting TraceConstants.${name}`);
    return value;
  };
  const setting = (name: string): string => `current_setting(${constant(name)}, true)`;
  const mark = `${constant("parent_header")} || '='`;
  return [
    `(${setting("parent_setting")} <> '' OR CASE WHEN ${setting("statement_setting")} <> ''`,
    `THEN ${setting("statement_setting")} <> statement_timestamp()::text || E'\\n'`,
    `ELSE octet_length(current_query()) > ${constant("short_statement_bytes")} OR strpos(current_query(), ${mark}) > 0 END)`,
  ].join(" ");
}

/**
 * SQL expression for headers with the context of the present trace.
 *
 * @param headers expression for the headers
 * @param maxItems greatest number of their values, or an expression for it
 */
export function withTrace(headers: string, maxItems: number | string, constants: ReadonlyMap<string, string>): string {
  return `CASE WHEN ${tracedCondition(constants)} THEN hawser.with_trace(${headers}, ${maxItems}) ELSE ${headers} END`;
}
