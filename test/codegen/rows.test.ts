/** The generated client of the SQL functions: what it gives to the client of Postgres, and makes of the rows. */
import { describe, expect, it } from "vitest";
import { type QueryClient, storeFunctions } from "../../generated/ts/rows/peer.js";

type Call = Parameters<QueryClient["query"]>[0];

/** A client that keeps its calls, and answers each with these rows. */
function answering(...rows: unknown[]): QueryClient & { readonly calls: Call[] } {
  const calls: Call[] = [];
  return {
    calls,
    query: async (config) => {
      calls.push(config);
      return { rows };
    },
  };
}

describe("a call", () => {
  it("is a named statement; a bigint and JSON go as text, bytes as a Buffer without a copy", async () => {
    const client = answering({ held: true, channel_id: 7, moved: null, ranks: null, role: null });
    const whole = new Uint8Array([1, 2, 3]);
    const rows = await storeFunctions(client).commitCursors({
      ...{ name: "n", epoch: 2n ** 60n, channelIds: [7], cursorEpochs: [1n], cursors: [2n] },
      ...{ left: "[]", leftPayloads: whole.subarray(1) },
    });
    expect(rows).toEqual([{ held: true, channelId: 7, moved: null, ranks: null, role: null }]);
    const [call] = client.calls;
    expect(call).toMatchObject({
      name: "hawser.commit_cursors",
      text: expect.stringContaining("$4::bigint[], $5::bigint[], $6::text::jsonb, $7::bytea"),
      values: ["n", "1152921504606846976", [7], ["1"], ["2"], "[]", Buffer.of(2, 3)],
    });
    expect((call!.values[6] as Buffer).buffer).toBe(whole.buffer);
  });

  it("makes a bigint of the text in a row, and keeps NULL", async () => {
    const { cursorOf } = storeFunctions(answering({ epoch: "9007199254740993", number: null, has_rows: false }));
    expect(await cursorOf({ channelId: 7 })).toEqual({ epoch: 9007199254740993n, number: null, hasRows: false });
  });

  it("says which function returned no row", async () => {
    await expect(storeFunctions(answering()).cursorOf({ channelId: 7 })).rejects.toThrow(
      "hawser.cursor_of returned no row; is the function in the database the one of this version?",
    );
  });
});
