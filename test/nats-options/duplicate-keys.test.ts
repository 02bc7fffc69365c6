import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { findDuplicateKey } from "../../codegen/nats-options/schema-node.js";

describe("findDuplicateKey", () => {
  it.each([
    ['{"a":1,"a":2}', "/a", 1],
    ['{\n"a": {"b": [0, {"c": 1,\n "c": 2}]}}', "/a/b/1/c", 3],
    ['{"a":1,"\\u0061":2}', "/a", 1],
    ['{"a/b~":1,"x":"}","a/b~":2}', "/a~1b~0", 1],
    ['{"":1, "":2}', "/", 1],
    ['[1, -2.5e3, true, null, "\\"a\\":", {"__proto__":1,"__proto__":2}]', "/5/__proto__", 1],
  ])("finds the one in %s", (text, pointer, line) => {
    expect(findDuplicateKey(text)).toEqual({ pointer, line });
  });

  it.each(['{"a":{"a":[{"a":1}, {"a":1}]}}', "{}", "[]", '"a"', " 5 ", '{"a":"\\\\","b":"\\"a\\":1,"}'])(
    "finds none in %s",
    (text) => {
      expect(findDuplicateKey(text)).toBeUndefined();
    },
  );

  it("finds none in anything that JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2, "\t"), (value, space) => {
        expect(findDuplicateKey(JSON.stringify(value, null, space))).toBeUndefined();
      }),
    );
  });
});
