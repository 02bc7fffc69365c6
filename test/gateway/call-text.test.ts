/**
 * The text of a call: what the SQL functions write parses back, and nothing else passes.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BadArgument } from "../../generated/ts/nats-functions/argument.js";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type CallText, parseCall, TooManyError } from "../../src/nats/gateway/call-text.js";

const { maxArgumentValues, maxBatchMessages } = gatewayConstants;

const methodName = fc.stringMatching(/^[A-Za-z]{1,64}$/);
/** NUL is no text in Postgres, and halves of surrogate pairs neither. */
const text = fc.string({ unit: "binary", maxLength: 40 }).map((one) => one.replaceAll("\0", "_"));
const bytes = fc.uint8Array({ maxLength: 40 });
const element = fc.option(bytes, { freq: 5 });

/** An argument as `to_json(…)::text`, `encode(…, 'base64')` and `jsonb::text` write it. */
const argument = fc.record({
  subject: text,
  payload: fc.option(bytes.map((one) => Buffer.from(one).toString("base64"))),
  timeout: fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
  headers: fc.option(fc.dictionary(text, fc.oneof(text, fc.array(text)))),
});

/** As the batch functions write their list: `t` as it is, `b` in base64. */
function listText(form: "t" | "b", elements: readonly (Uint8Array | null)[]): Buffer {
  const lengths = elements.map((one) => (one === null ? "-" : one.length)).join(",");
  const all = Buffer.concat(elements.filter((one) => one !== null));
  return Buffer.concat([
    Buffer.from(`\n${form}${lengths}\n`),
    form === "t" ? all : Buffer.from(all.toString("base64")),
  ]);
}

function call(...parts: readonly (string | Uint8Array)[]): Buffer {
  return Buffer.concat(parts.map((part) => Buffer.from(part)));
}

/** The rule that a call breaks. */
function faultOf(query: Uint8Array): string {
  try {
    parseCall(query);
  } catch (error) {
    if (!(error instanceof BadArgument)) throw error;
    expect(error.fault).toMatchObject({ kind: "form", argument: "", value: "" });
    return error.fault.rule;
  }
  return "none";
}

describe("a call that the SQL functions write", () => {
  it("parses back: a method and its argument", () => {
    fc.assert(
      fc.property(methodName, argument, (method, json) => {
        // Postgres puts a space behind each colon and comma of jsonb, and none into json.
        for (const written of [JSON.stringify(json), JSON.stringify(json, null, 1).replaceAll("\n", "")]) {
          const { method: parsedMethod, json: parsedJson, list } = parseCall(call(`${method} ${written}`));
          expect([parsedMethod, list]).toEqual([method, undefined]);
          expect(JSON.stringify(parsedJson)).toBe(JSON.stringify(json));
        }
      }),
    );
  });

  it("parses back: lists of payloads, in both forms, with their NULLs", () => {
    fc.assert(
      fc.property(fc.constantFrom("t", "b"), fc.array(element), (form, elements) => {
        const { list } = parseCall(call('PublishBatch {"subject":"a"}', listText(form, elements)));
        expect(list!.payloads!.map((one) => Buffer.from(one))).toEqual(elements.map((one) => Buffer.from(one ?? [])));
        expect(list!.firstNull).toBe(elements.includes(null) ? elements.indexOf(null) : undefined);
      }),
    );
  });

  it("parses back: line feeds and numbers in payloads, which look like the list itself", () => {
    const { list } = parseCall(call("M {}", listText("t", [Buffer.from("\nt1,2\n"), Buffer.from("-,-\n{}")])));
    expect(list!.payloads!.map(String)).toEqual(["\nt1,2\n", "-,-\n{}"]);
  });

  it("parses back: an array that is NULL, one without elements, and one of empty texts", () => {
    const lists = ["\nn\n", "\nt\n", "\nb\n", "\nt0,0\n", "\nt-\n"].map((list) => parseCall(call("M {}", list)).list);
    expect(lists.map((list) => [list!.payloads?.length, list!.firstNull])).toEqual([
      [undefined, undefined],
      [0, undefined],
      [0, undefined],
      [2, undefined],
      [1, 0],
    ]);
  });

  it("parses back if the query is a part of a larger buffer", () => {
    const query = call("xxM {}\nt2,1\nabcyy").subarray(2, -2);
    const { method, list } = parseCall(new Uint8Array(query.buffer, query.byteOffset, query.byteLength));
    expect([method, ...list!.payloads!.map(String)]).toEqual(["M", "ab", "c"]);
  });

  it("keeps a byte order mark and what stands outside of the BMP", () => {
    expect(parseCall(call('M {"a":"\ufeff😀"}')).json).toEqual({ a: "\ufeff😀" });
  });

  it("has no argument if there is none", () => {
    expect(parseCall(call("Ping"))).toEqual({ method: "Ping", json: undefined, list: undefined });
  });
});

describe("anything else", () => {
  it("parses, or is refused for its form", () => {
    const anything = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.string({ unit: "binary" }).map((one) => Buffer.from(one)),
      fc
        .tuple(methodName, fc.json(), fc.stringMatching(/^\n[ntbx]?[-0-9,]{0,12}\n?/), fc.uint8Array({ maxLength: 30 }))
        .map(([method, json, list, rest]) => call(method, " ", json, list, rest)),
    );
    fc.assert(
      fc.property(anything, (query) => {
        const before = Buffer.from(query);
        let parsed: CallText | undefined;
        try {
          parsed = parseCall(query);
        } catch (error) {
          expect(error).toBeInstanceOf(BadArgument);
          expect((error as BadArgument).fault.kind).toBe("form");
        }
        if (parsed !== undefined) expect(parsed.method).toMatch(/^[A-Za-z]{1,64}$/);
        expect(before.equals(query)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ["", "it does not start with a method"],
    [" {}", "it does not start with a method"],
    ["\nt\n", "it does not start with a method"],
    ["SELECT 1; DROP TABLE x", "its argument is not JSON"],
    ["Publish;{}", "it does not start with a method"],
    ["Publish\t{}", "it does not start with a method"],
    ["__proto__ {}", "it does not start with a method"],
    [`${"a".repeat(65)} {}`, "it does not start with a method"],
    ["Publish ", "its argument is not JSON"],
    ["Publish {} {}", "its argument is not JSON"],
    ["Publish {a:1}", "its argument is not JSON"],
    ['Publish {"a":NaN}', "its argument is not JSON"],
    ["Publish {\n}", "its argument is not JSON"],
    ["M {}\n", "its list of payloads has no lengths"],
    ["M {}\nt1", "its list of payloads has no lengths"],
    ["M {}\n\n", "its list of payloads has an unknown format"],
    ["M {}\nx\n", "its list of payloads has an unknown format"],
    ["M {}\nn1\n", "its list of payloads has an unknown format"],
    ["M {}\nn\nx", "its list of payloads has an unknown format"],
    ["M {}\nt1,\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt,1\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt+1\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt1e0\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt 1\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt--\n", "a length in its list of payloads is not a number"],
    ["M {}\nt99999999999\nx", "a length in its list of payloads is not a number"],
    ["M {}\nt9999999999\nx", "its payloads are shorter than their lengths say"],
    ["M {}\nt2\nx", "its payloads are shorter than their lengths say"],
    ["M {}\nt\nx", "its payloads are longer than their lengths say"],
    ["M {}\nt1\nxx", "its payloads are longer than their lengths say"],
    ["M {}\nb1\nQQ=", "its payloads are not base64"],
    ["M {}\nb1\nQQ", "its payloads are not base64"],
    ["M {}\nb2\nQQ==QQ==", "its payloads are not base64"],
    ["M {}\nb1\nQ Q=", "its payloads are not base64"],
    ["M {}\nb1\nQQ==\n", "its payloads are not base64"],
    ["M {}\nb3\nQQ==", "its payloads are shorter than their lengths say"],
  ])("is refused: %j", (query, rule) => {
    expect(faultOf(Buffer.from(query))).toBe(rule);
  });

  it.each([[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80]])(
    "is refused: bytes that are no UTF-8",
    (...bad) => {
      expect(faultOf(call('M {"a":"', Buffer.from(bad), '"}'))).toBe("it is not UTF-8");
      expect(faultOf(Buffer.from(bad))).toBe("it is not UTF-8");
    },
  );

  it("may be anything in payloads that are sent as they are", () => {
    expect(parseCall(call("M {}\nt2\n", Buffer.from([0xff, 0]))).list!.payloads).toEqual([Buffer.from([0xff, 0])]);
  });
});

describe("cost", () => {
  it("is refused: an argument of more values than the limit, before they take memory", () => {
    for (const values of [
      "[],".repeat(maxArgumentValues + 1),
      '{"a":'.repeat(maxArgumentValues + 1),
      "[".repeat(2e7),
    ]) {
      expect(() => parseCall(call(`M {"headers":${values}`))).toThrow(new TooManyError("values", maxArgumentValues));
    }
    const most = JSON.stringify({ headers: { a: new Array(maxArgumentValues - 3).fill("") } });
    expect(parseCall(call(`M ${most}`)).json).toEqual(JSON.parse(most));
  });

  it("is refused: a list of more messages than the limit", () => {
    const list = (count: number) => call("M {}\nt", `${"0,".repeat(count - 1)}0`, "\n");
    expect(parseCall(list(maxBatchMessages)).list!.payloads).toHaveLength(maxBatchMessages);
    expect(() => parseCall(list(maxBatchMessages + 1))).toThrow(new TooManyError("messages", maxBatchMessages));
  });

  it.each([
    ["a payload", (size: number) => call(`M {"payload":"${"QUJD".repeat(size / 4)}"}`)],
    ["a list", () => call("M {}\nt", `${"1,".repeat(maxBatchMessages - 1)}0\n`, "x".repeat(maxBatchMessages - 1))],
    ["a list in base64", (size: number) => call(`M {}\nb${(size / 4) * 3}\n`, "QUJD".repeat(size / 4))],
    ["nesting", (size: number) => call(`M ${"[".repeat(size / 2)}${"]".repeat(size / 2)}`)],
    ["escapes", (size: number) => call(`M {"a":"${"\\u0041".repeat(size / 6)}"}`)],
    ["an endless method", (size: number) => call("M".repeat(size))],
    ["something that is no JSON", (size: number) => call(`M {"a":"${"x".repeat(size)}`)],
  ])("grows no faster than the text, else this would not end: %s", (_, make) => {
    const query = make(12 * 2 ** 20);
    try {
      expect(parseCall(query).method).toBe("M");
    } catch (error) {
      expect(error instanceof BadArgument || error instanceof TooManyError).toBe(true);
    }
  });
});
