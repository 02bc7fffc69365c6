import { inTableSchema, type Table } from "../model/tables.js";
import { functionSettings } from "./function-settings.js";
import { doBlock, dollarQuoted, sqlString } from "./literal.js";

/**
 * Trigger function, and the trigger if it is missing, that notifies a channel of each changed row: `{"operation": "insert" | "update" | "delete", <column>: …}`.
 *
 * An update of one of the named columns is also notified as a deletion of the old row, so that a listener that knows
 * the row under its old name removes it.
 */
export function notifyTrigger(table: Table, notify: NonNullable<Table["notify"]>): string {
  const name = `${table.name}_notify`;
  const notification = (row: string, operation: string) => {
    const pairs = [
      `'operation', ${operation}`,
      ...notify.columns.map((column) => `${sqlString(column)}, ${row}.${column}`),
    ];
    // A full queue would fail the COMMIT that changes the row. Listeners poll as well, so they can miss a notification.
    return `PERFORM pg_notify(${sqlString(notify.channel)}, json_build_object(${pairs.join(", ")})::text) WHERE pg_notification_queue_usage() < 0.9;`;
  };
  const row = (alias: string) => `(${notify.columns.map((column) => `${alias}.${column}`).join(", ")})`;
  const body = [
    "BEGIN",
    `  IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND ${row("OLD")} IS DISTINCT FROM ${row("NEW")}) THEN`,
    `    ${notification("OLD", "'delete'")}`,
    "  END IF;",
    "  IF TG_OP <> 'DELETE' THEN",
    `    ${notification("NEW", `lower(TG_OP COLLATE "C")`)}`,
    "  END IF;",
    "  RETURN NULL;",
    "END",
  ].join("\n");
  return [
    `CREATE OR REPLACE FUNCTION hawser.${name}() RETURNS trigger`,
    "LANGUAGE plpgsql",
    ...functionSettings(),
    `AS ${dollarQuoted("function", body)};`,
    `COMMENT ON FUNCTION hawser.${name}() IS ${sqlString(`Tells channel ${notify.channel} of each change of ${table.name}.`)};`,
    "",
    // CREATE OR REPLACE TRIGGER would wait for all who write to the table, also if the trigger is there.
    doBlock([
      "BEGIN",
      `  IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = '${inTableSchema(table)}'::pg_catalog.regclass AND tgname = ${sqlString(name)}) THEN`,
      `CREATE TRIGGER ${name} AFTER INSERT OR UPDATE OR DELETE ON ${inTableSchema(table)}`,
      `FOR EACH ROW EXECUTE FUNCTION hawser.${name}();`,
      "  END IF;",
      "END",
    ]),
  ].join("\n");
}

/** Name of the trigger function; undefined if the table notifies no channel. */
export function notifyFunctionName(table: Table): string | undefined {
  return table.notify === undefined ? undefined : `${table.name}_notify`;
}
