import type { QueryClient } from "../../generated/ts/rows/peer.js";

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
