/**
 * Column names in queries, checked by the compiler against the row types that the spec generates.
 */
import type { QueryClient } from "../../generated/ts/rows/peer.js";

/** A list of columns of one table, and the type of a row that has just these. */
export interface ColumnList<Row, Name extends keyof Row & string> {
  /** `a, b, c`, each behind the alias and a dot if one is given. */
  sql(alias?: string): string;
  readonly names: readonly Name[];
  /** Only for types: `typeof list.row`. */
  readonly row: Pick<Row, Name>;
}

/**
 * Columns of the table whose rows are `Row`.
 *
 *     const listener = columnsOf<TopicAddrRow>()("addr", "client_name");
 *     database.query<typeof listener.row>("…", { text: `SELECT ${listener.sql()} FROM ${tables.topicAddr}` });
 */
export function columnsOf<Row>() {
  return <Name extends keyof Row & string>(...names: Name[]): ColumnList<Row, Name> => ({
    names,
    sql: (alias) => names.map((name) => (alias === undefined ? name : `${alias}.${name}`)).join(", "),
    row: undefined as never,
  });
}

/** `a = excluded.a, b = excluded.b`: what ON CONFLICT overwrites. */
export function overwrite({ names }: { readonly names: readonly string[] }): string {
  return names.map((name) => `${name} = excluded.${name}`).join(", ");
}

/**
 * What the generated function clients call, on top of `client`: their arrays of integers are written as
 * Postgres reads them. The driver would quote and escape every element, which costs more than the insert of its row.
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
