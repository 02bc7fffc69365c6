import type { Column } from "./columns.js";
import { SpecError } from "./spec-error.js";
import type { Table } from "./tables.js";

/** pg_notify refuses a payload of this many bytes or more, and with it the write that fired the trigger. */
const payloadLimitBytes = 8000;

/** JSON writes a control character, one byte, in six. */
const jsonGrowth = 6;

/** The longest text of a number, boolean or timestamp in JSON, with its quotes. */
const scalarBytes = 40;

/** `{"operation" : "insert"}` with the spaces that json_build_object writes. */
const operationBytes = 30;

/**
 * Makes sure that no row can make a notification that Postgres refuses.
 *
 * @throws SpecError if a text column of the payload is not limited, if a column is of a type that has no bound, or if
 * all of them together may exceed the limit.
 */
export function checkNotifyPayload(table: Table, notify: NonNullable<Table["notify"]>): void {
  let total = operationBytes;
  for (const name of notify.columns) {
    const column = table.columns.find((candidate) => candidate.name === name)!;
    total += name.length + '"" : , '.length + greatestJsonBytes(table, column);
  }
  if (total >= payloadLimitBytes) {
    throw new SpecError(
      table.message,
      `notify: the payload may have ${total} bytes, NOTIFY takes less than ${payloadLimitBytes}; name fewer columns`,
    );
  }
}

function greatestJsonBytes(table: Table, column: Column): number {
  const { maxBytes } = column.rules;
  switch (column.kind) {
    case "number":
    case "bigint":
    case "boolean":
    case "timestamp":
      if (!column.repeated) {
        return scalarBytes;
      }
      break;
    case "string":
      if (!column.repeated && maxBytes !== undefined) {
        return maxBytes * jsonGrowth + 2;
      }
      break;
    default:
      break;
  }
  throw new SpecError(
    table.message,
    `notify: column "${column.name}" has no greatest length; name only numbers, booleans, times and text with max_bytes`,
  );
}
