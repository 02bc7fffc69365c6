import type { Table } from "../model/tables.js";
import { dollarQuoted, sqlString } from "./literal.js";

/**
 * A trigger that tells a channel which row changed: `{"operation": "insert" | "update" | "delete", <column>: …}`.
 *
 * An update that changes one of the named columns is told as the deletion of the old row too, so that a listener that
 * knows it under its old name hears that it is gone.
 */
export function notifyTrigger(table: Table, notify: NonNullable<Table["notify"]>): string {
  const name = `${table.name}_notify`;
  const told = (row: string, operation: string) => {
    const pairs = [
      `'operation', ${operation}`,
      ...notify.columns.map((column) => `${sqlString(column)}, ${row}.${column}`),
    ];
    return `PERFORM pg_notify(${sqlString(notify.channel)}, json_build_object(${pairs.join(", ")})::text);`;
  };
  const row = (alias: string) => `(${notify.columns.map((column) => `${alias}.${column}`).join(", ")})`;
  const body = [
    "BEGIN",
    `  IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND ${row("OLD")} IS DISTINCT FROM ${row("NEW")}) THEN`,
    `    ${told("OLD", "'delete'")}`,
    "  END IF;",
    "  IF TG_OP <> 'DELETE' THEN",
    `    ${told("NEW", "lower(TG_OP)")}`,
    "  END IF;",
    "  RETURN NULL;",
    "END",
  ].join("\n");
  return [
    `CREATE OR REPLACE FUNCTION hawser.${name}() RETURNS trigger`,
    "LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp",
    `AS ${dollarQuoted("function", body)};`,
    `COMMENT ON FUNCTION hawser.${name}() IS ${sqlString(`Tells channel ${notify.channel} of each change of ${table.name}.`)};`,
    "",
    `CREATE TRIGGER ${name} AFTER INSERT OR UPDATE OR DELETE ON hawser.${table.name}`,
    `FOR EACH ROW EXECUTE FUNCTION hawser.${name}();`,
    "",
  ].join("\n");
}

/** The name of the trigger function; undefined if the table tells no channel. */
export function notifyFunctionName(table: Table): string | undefined {
  return table.notify === undefined ? undefined : `${table.name}_notify`;
}
