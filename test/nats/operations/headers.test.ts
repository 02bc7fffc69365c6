import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/connections/headers.js";
import { bytesOf, failureOf, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe("readHeaders", () => {
  it("keeps the case of names, which are told apart by it, and the order of values", async () => {
    const subscription = used.stock.subscribe("operations.headers", { max: 1 });
    await used.stock.flush();
    const json = JSON.parse(
      '{"x-a": "1", "X-A": ["2", "3", "2"], "!#$%&*+-.^_|~()/": "ä 漢 \u{1f6f3}", "__proto__": "p", "empty": "", "none": []}',
    );
    await used.operations.publish("operations.headers", bytesOf(0), { headers: readHeaders(json), timeoutMs });
    for await (const message of subscription) {
      expect([...message.headers!]).toEqual([
        ["x-a", ["1"]],
        ["X-A", ["2", "3", "2"]],
        ["!#$%&*+-.^_|~()/", ["ä 漢 \u{1f6f3}"]],
        ["__proto__", ["p"]],
        ["empty", [""]],
      ]);
    }
  });

  it("sends the white space at the ends of a value, which this client's reader takes away", () => {
    expect(readHeaders({ a: " b\t" })!.get("a")).toBe(" b\t");
  });

  it("is undefined if there is no header", () => {
    expect(readHeaders(undefined)).toBeUndefined();
    expect(readHeaders(null)).toBeUndefined();
    expect(readHeaders({})).toBeUndefined();
    expect(readHeaders({ a: [] })).toBeUndefined();
  });

  it.each([
    ["[]", "an array"],
    ['"a"', "a string"],
    ["7", "a number"],
    ['{"a": 1}', '"a" must be a string or an array of strings, and has a number'],
    ['{"a": null}', '"a" must be a string or an array of strings, and has null'],
    ["true", "a boolean"],
    ['{"a": {"b": "c"}}', "has an object"],
    ['{"good": "x", "a\\tb": "x"}', 'the name "a\\tb" must be'],
    ['{"a": ["b", ["c"]]}', "has an array"],
    ['{"a": ["b", true]}', "has a boolean"],
    ['{"a": "b\\r\\nX: y"}', 'the value of "a" must not have CR or LF'],
    ['{"a": "b\\nc"}', 'the value of "a" must not have CR or LF'],
    ['{"a": "\\ud800"}', "half of a surrogate pair"],
    ['{"": "b"}', 'the name "" must be'],
    ['{"a:b": "c"}', 'the name "a:b" must be'],
    ['{"a b": "c"}', 'the name "a b" must be'],
    ['{"a\\r\\nb": "c"}', "the name"],
    ['{"\u00e4": "c"}', "the name"],
  ])("refuses %s", async (json, words) => {
    const error = await failureOf("invalid_argument", () => readHeaders(JSON.parse(json)));
    expect(error.message).toContain(words);
  });
});
