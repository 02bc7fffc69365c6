/**
 * Statements of Hawser on a client of a user. Its library or program may have parsers of its own for any type, and may
 * rename columns: so each value is sent and read as text, and each column is read by its position.
 */
import type { ResultColumns, ResultKind } from "../../../generated/ts/rows/queue.js";
import { asText } from "./library-clients.js";
import { rowsOf, type SqlClient } from "./sql-client.js";

/**
 * Runs a statement, and returns its rows with values of the kinds of their columns: bytes as Buffer, timestamps as Date.
 *
 * @throws HawserError `invalid_argument` for a client that resolves without rows; errors of the client
 */
export async function queryText(
  client: SqlClient,
  text: string,
  values: readonly unknown[],
  results: ResultColumns,
): Promise<Record<string, unknown>[]> {
  const columns = Object.entries(results);
  const selected = columns.map(([name, kind], index) => `${textOf(`r.${name}`, kind)} AS r${index + 1}`);
  const rows = rowsOf(await client.query(`SELECT ${selected.join(", ")} FROM (${text}) AS r`, values.map(asText)));
  return rows.map((row) => {
    const texts = Object.values(row);
    return Object.fromEntries(columns.map(([name, kind], index) => [name, decoded(texts[index], kind)]));
  });
}

/** Expression for the text of a column, which depends on no setting of the session. */
function textOf(column: string, kind: ResultColumns[string]): string {
  if (kind === "bytes") return `pg_catalog.encode(${column}, 'hex')`;
  if (kind === "timestamp") return `pg_catalog.to_json(${column})::pg_catalog.text`;
  if (kind.endsWith("[]")) return `pg_catalog.to_json(${column}::pg_catalog.text[])::pg_catalog.text`;
  return `${column}::pg_catalog.text`;
}

function decoded(text: unknown, kind: ResultColumns[string]): unknown {
  if (text === null || text === undefined) return null;
  if (kind.endsWith("[]")) {
    const elements = JSON.parse(text as string) as (string | null)[];
    return elements.map((element) => decoded(element, kind.slice(0, -2) as ResultKind));
  }
  switch (kind) {
    case "number":
      return Number(text);
    case "bigint":
      return BigInt(text as string);
    case "bytes":
      return Buffer.from(text as string, "hex");
    case "boolean":
      return text === "true";
    case "timestamp":
      return new Date(JSON.parse(text as string));
    case "json":
      return JSON.parse(text as string);
    default:
      return text;
  }
}
