import { expect, it } from "vitest";
import { errorMessageOf } from "../../src/foundation/errors/index.js";

const trap = (): never => {
  throw new Error("do not look");
};

it.each<[string, unknown, string]>([
  ["an error", new TypeError("x is no function"), "x is no function"],
  ["an error with another message", Object.assign(new Error(), { message: 7 }), "7"],
  ["a text", "out of stock", "out of stock"],
  ["undefined", undefined, "a value that is no error: undefined"],
  ["null", null, "a value that is no error: null"],
  ["a number", 17, "a value that is no error: 17"],
  [
    "an object",
    { code: 17, of: { a: 1, b: { c: 2 } } },
    "a value that is no error: { code: 17, of: { a: 1, b: [Object] } }",
  ],
  ["an object without a prototype", Object.create(null), "a value that is no error: [Object: null prototype] {}"],
  [
    "a long text in an object",
    { text: "x".repeat(300) },
    `a value that is no error: { text: '${"x".repeat(200)}'... 100 more characters }`,
  ],
  ["an object whose toString throws", { toString: trap }, "a value that is no error: { toString: [Function: trap] }"],
  ["a proxy that throws", new Proxy({}, { getPrototypeOf: trap }), "a value that cannot be shown"],
])("the message of %s is readable", (_, thrown, message) => {
  expect(errorMessageOf(thrown)).toBe(message);
});
