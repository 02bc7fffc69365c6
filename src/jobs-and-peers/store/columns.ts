/** Column names in queries, checked by the compiler against the generated row types. */
import type { QueryClient } from "../../../generated/ts/rows/peer.js";

/** Columns of one table, and the type of a row with exactly these columns. */
export interface ColumnList<Row, Name extends keyof Row & string> {
  /** Comma-separated names, each prefixed with the alias if one is given. */
  sql(alias?: string): string;
  readonly names: readonly Name[];
  /** Type only: `typeof list.row`. */
  readonly row: Pick<Row, Name>;
}

/**
 * Selects columns of the table with rows of type `Row`.
 *
 *     const listener = columnsOf<ListenerRow>()("addr", "listener_name");
 *     database.query<typeof listener.row>("…", { text: `SELECT ${listener.sql()} FROM ${tables.listener}` });
 */
export function columnsOf<Row>() {
  return <Name extends keyof Row & string>(...names: Name[]): ColumnList<Row, Name> => ({
    names,
    sql: (alias) => names.map((name) => (alias === undefined ? name : `${alias}.${name}`)).join(", "),
    row: undefined as never,
  });
}

/** Assignments of ON CONFLICT DO UPDATE: `a = excluded.a, b = excluded.b`. */
export function overwrite({ names }: { readonly names: readonly string[] }): string {
  return names.map((name) => `${name} = excluded.${name}`).join(", ");
}

/**
 * Wraps a client for the generated functions: arrays of integers are sent in Postgres's array syntax. The driver would
 * quote and escape each element, which costs more than the insert of its row.
 */
export function withIntegerArrays(client: QueryClient): QueryClient {
  return {
    query: ({ values, ...statement }) =>
      client.query({
        ...statement,
        values: values.map((value) => (isIntegers(value) ? `{${value.join(",")}}` : value)),
      }),
  };
}

function isIntegers(value: unknown): value is readonly (number | bigint)[] {
  return Array.isArray(value) && (typeof value[0] === "number" || typeof value[0] === "bigint");
}
