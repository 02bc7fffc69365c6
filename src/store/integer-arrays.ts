import type { QueryClient } from "../../generated/ts/rows/peer.js";

/**
 * What the generated function clients call, on top of `client`: their arrays, all of integers, are written as Postgres
 * reads them. The driver would quote and escape every element, which costs more than the insert of its row.
 */
export function withIntegerArrays(client: QueryClient): QueryClient {
  return {
    query: ({ values, ...statement }) =>
      client.query({
        ...statement,
        values: values.map((value) => (Array.isArray(value) ? `{${value.join(",")}}` : value)),
      }),
  };
}
