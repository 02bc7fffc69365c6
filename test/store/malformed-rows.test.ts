/**
 * Rows that break a rule. Every member of `hawser_peer` can write them, and the store says what is wrong with each. What
 * the tables refuse is in refused-rows.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Position } from "../../src/jobs-and-peers/store/index.js";
import { type World, world } from "./support/world.js";

const start: Position = { epoch: 0, number: 0 };
const tooMany = JSON.stringify(Array.from({ length: 257 }, () => ["a", "b"]));

let w: World;
let channel: number;

beforeAll(async () => {
  w = await world();
  channel = await w.channelOf({ name: "sender", sourceTopic: "source" }, "listener");
});
afterAll(() => w[Symbol.asyncDispose]());

/** Headers that are none, and what is said of them. */
const malformedHeaders = (
  [
    ['[["a"]]', "headers[0].pair is 1 elements; it must have exactly 2 elements. Give exactly 2 elements."],
    ['[["k", "v"], ["a", "b", "c"]]', "headers[1].pair is 3 elements; it must have exactly 2 elements."],
    ['[["k", "v"], null]', "headers[1].pair is null; it must be a list. Give an array."],
    ['[["k", "v"], "ab"]', 'headers[1].pair is "ab"; it must be a list.'],
    ['[["k", "v"], [1, "b"]]', "headers[1].name is 1; it must be a string. Give a string."],
    ['[["k", "v"], ["a", {"b": 1}]]', "headers[1].value is a value of type object; it must be a string."],
    ['[["k", "v"], ["a b", "c"]]', `headers[1].name is "a b"; it must be visible ASCII without ':'.`],
    ['[["k", "v"], ["", "c"]]', 'headers[1].name is ""; it must be 1 to 255 bytes long in UTF-8.'],
    [
      '[["k", "v"], ["a", "\\u0007"]]',
      "headers[1].value is a text that may be a secret; it must not contain control characters other than tab.",
    ],
    ['{"a": "b"}', "headers is a value of type object; it must be a list."],
    ['"ab"', 'headers is "ab"; it must be a list.'],
    ["7", "headers is 7; it must be a list."],
    [tooMany, "headers is 257 elements; it must have at most 256 elements."],
  ] as const
).map(([json, fault]) => [json.slice(0, 40), json, fault] as const);

describe("a stored message", () => {
  /** Reads the only row, which is deleted. */
  async function stored(columns: Readonly<Record<string, unknown>>) {
    const row = { channel_id: channel, epoch: 7, number: 1, payload: Buffer.from("xyz"), ...columns };
    const names = Object.keys(row);
    const values = names.map((_, at) => `$${at + 1}`);
    const insert = `INSERT INTO hawser_peer_data.stored_messages (${names.join()}) VALUES (${values.join()})`;
    await w.operator.query(insert, Object.values(row));
    const { rows } = await w.store.drain(channel, start);
    await w.operator.query("DELETE FROM hawser_peer_data.stored_messages");
    return rows.map(({ position, payload, headers = [], fault }) => {
      return { number: position.number, text: Buffer.from(payload).toString(), headers, fault };
    });
  }

  it.each(malformedHeaders)(
    "with the headers %s keeps those that are some, and has a fault",
    async (_, headers, fault) => {
      const [row, ...others] = await stored({ headers });
      expect(others).toEqual([]);
      expect(row).toMatchObject({ number: 1, text: "xyz" });
      expect(row!.fault).toContain(`its row in the database breaks a rule: ${fault}`);
      const kept =
        headers === tooMany ? JSON.parse(tooMany).slice(1) : headers.includes('["k", "v"]') ? [["k", "v"]] : [];
      expect(row!.headers).toEqual(kept);
    },
  );

  it.each([null, "null", "[]", '[["a", ""], ["a", "é\\t"]]'])("with the headers %s has none", async (headers) => {
    const given = headers === null ? [] : (JSON.parse(headers) ?? []);
    expect(await stored({ headers })).toEqual([{ number: 1, text: "xyz", headers: given, fault: undefined }]);
  });

  it("of a batch has a fault of its own", async () => {
    const headers = '[[["a", "b"]], null, [["a"]]]';
    expect(await stored({ number: 3, messages: 3, lengths: [1, 1, 1], headers })).toEqual([
      { number: 1, text: "x", headers: [["a", "b"]], fault: undefined },
      { number: 2, text: "y", headers: [], fault: undefined },
      { number: 3, text: "z", headers: [], fault: expect.stringContaining("headers[0].pair is 1 elements") },
    ]);
  });

  it.each([
    [
      "lengths",
      { lengths: [1, 1] },
      "lengths is a list with the sum 2; it must add up to the 3 bytes of the payloads.",
    ],
    ["lengths", { lengths: [4, -1] }, "lengths is a list with the sum NaN; it must add up"],
    ["lengths", { lengths: [3, null] }, "lengths is a list with the sum NaN; it must add up"],
    ["lengths", { lengths: "{{1},{2}}" }, "lengths is a list with the sum NaN; it must add up"],
    ["headers", { lengths: [1, 2], headers: "[null]" }, "headers is 1 elements; it must have exactly 2 elements."],
    ["headers", { lengths: [1, 2], headers: '{"1": []}' }, "headers is a value of type object; it must be a list."],
  ])("of a batch with wrong %s: all have the fault, and the first one all payloads", async (_, columns, fault) => {
    const rows = await stored({ number: 2, messages: 2, ...columns });
    expect(rows).toMatchObject([
      { number: 1, text: "xyz", headers: [] },
      { number: 2, text: "", headers: [] },
    ]);
    for (const row of rows) expect(row.fault).toContain(`its row in the database breaks a rule: ${fault}`);
  });

  it("of a batch whose numbers would begin below 1 has a fault", async () => {
    const rows = await stored({ number: 1, messages: 2, lengths: [1, 2] });
    expect(rows).toEqual([
      { number: 1, text: "xyz", headers: [], fault: expect.stringContaining("number is 1; it must be at least 2") },
    ]);
  });
});
