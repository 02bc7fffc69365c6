import { MsgHdrsImpl } from "@nats-io/transport-node";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReceivedNatsHeaders } from "../../src/nats/connections/headers.js";

const read = (text: string, maxHeaders?: number) => new ReceivedNatsHeaders(Buffer.from(text), maxHeaders);

const name = fc.stringMatching(/^[!-9;-~]{1,12}$/);
const value = fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replace(/[\r\n]/g, " "));
const status = fc.constantFrom(
  "",
  " 503",
  " 408 Request Timeout",
  " 100 Idle Heartbeat",
  "  ",
  " no number",
  " 1e9 x 1",
);

describe("headers that were received", () => {
  it("are what nats.js reads, if they are well-formed", () => {
    const lines = fc.array(fc.tuple(name, value), { maxLength: 30 });
    fc.assert(
      fc.property(status, lines, fc.constantFrom("", " ", "\t "), (first, pairs, space) => {
        const text = `NATS/1.0${first}\r\n${pairs.map(([key, each]) => `${key}:${space}${each}\r\n`).join("")}\r\n`;
        const ours = read(text);
        const theirs = MsgHdrsImpl.decode(Buffer.from(text));
        expect(ours.problem).toBeUndefined();
        expect([...ours]).toEqual([...theirs]);
        expect([ours.code, ours.description]).toEqual([theirs.code, theirs.description]);
        for (const key of [...theirs.keys(), "missing"]) {
          expect(ours.values(key)).toEqual(theirs.values(key));
          expect([ours.get(key), ours.last(key), ours.has(key)]).toEqual([
            theirs.get(key),
            theirs.last(key),
            theirs.has(key),
          ]);
        }
        expect(new Map(Object.entries(JSON.parse(ours.toJsonText())))).toEqual(new Map(theirs));
      }),
    );
  });

  it("are read from whatever bytes, without an exception", () => {
    const pieces = fc.constantFrom(
      ...'NATS/1.0 : a é __proto__ 1 "'.split(" "),
      "\r\n",
      "\n",
      "\r",
      " ",
      "\0",
      "\ufeff",
    );
    const blocks = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.array(pieces, { maxLength: 60 }).map((all) => Buffer.from(all.join(""))),
    );
    fc.assert(
      fc.property(blocks, (block) => {
        const headers = new ReceivedNatsHeaders(block);
        const object = JSON.parse(headers.toJsonText()) as Record<string, string[]>;
        expect(Object.keys(object).length).toBe(headers.size());
        for (const key of headers.keys()) expect(object[key]).toEqual(headers.values(key));
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    ["a name with a space", "a b: c", { "a b": ["c"] }],
    ["a name that is no ASCII", "hé: x", { hé: ["x"] }],
    ["white space around a name", " A : x", { A: ["x"] }],
    ["lines that end with LF alone", "A: x\nB: y", { A: ["x"], B: ["y"] }],
    ["a CR in a value", "A: x\ry", { A: ["x\ry"] }],
    ["a line that begins with its colon", ": x", {}],
    ["names that objects have", "__proto__: 1\r\nconstructor: 2", { ["__proto__"]: ["1"], constructor: ["2"] }],
  ])("have %s", (_, lines, expected) => {
    const headers = read(`NATS/1.0\r\n${lines}\r\n\r\n`);
    expect(headers.problem).toBeUndefined();
    expect(Object.entries(JSON.parse(headers.toJsonText()))).toEqual(Object.entries(expected));
  });

  it.each([
    ["a line without a colon", "NATS/1.0\r\nA: x\r\nno colon\r\nB: y\r\n\r\n", "line 3 of them has no colon"],
    ["another beginning", "HTTP/1.1\r\nA: x\r\nB: y\r\n\r\n", "they do not begin with NATS/1.0"],
  ])("tell of %s, and have what can be read beside it", (_, text, problem) => {
    const headers = read(text);
    expect(headers.problem).toBe(problem);
    expect(headers.toJsonText()).toBe('{"A":["x"],"B":["y"]}');
  });

  it("are read up to a number of lines", () => {
    expect(read("NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", 2).problem).toBeUndefined();
    const headers = read("NATS/1.0\r\nA: 1\r\nA: 2\r\nA: 3\r\n\r\n", 2);
    expect(headers.problem).toBe("there are more than 2");
    expect(headers.values("A")).toEqual(["1", "2"]);
  });

  it.each([
    ["of many names", (index: number) => `h${index.toString(36)}:`],
    ["of one name", () => "a:"],
    ["without a colon", () => "a"],
    ["without anything", () => ""],
  ])("are read in linear time, else this would not end: %s", (_, line) => {
    const lines = Array.from({ length: 200_000 }, (_, index) => line(index)).join("\r\n");
    const headers = new ReceivedNatsHeaders(Buffer.from(`NATS/1.0\r\n${lines}\r\n`), Number.POSITIVE_INFINITY);
    expect(headers.toJsonText().length).toBeGreaterThan(1);
  });
});
