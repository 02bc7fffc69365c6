/**
 * Good and bad values for every rule of `buf.validate` that is supported. The checks in TypeScript, those in SQL and
 * protovalidate all read this table, and must say the same of each value.
 */
import type { JsonValue } from "@bufbuild/protobuf";

/** A field `value` with rules. */
export interface RuleCase {
  /** The rule, as a violation names it. */
  readonly rule: string;
  /** The body of a message with a field `value`. `buf.validate.field` may be written as `rules`. */
  readonly body: string;
  /** Values of the field in the JSON of Protobuf; undefined: it is not set. */
  readonly good: readonly (JsonValue | undefined)[];
  readonly bad: readonly (JsonValue | undefined)[];
}

const scalarField = (type: string, rules: string): string => `${type} value = 1 [(rules).${type} = {${rules}}];`;

const integers = [
  "int32",
  "int64",
  "uint32",
  "uint64",
  "sint32",
  "sint64",
  "fixed32",
  "fixed64",
  "sfixed32",
  "sfixed64",
];
const numbers = [...integers, "float", "double"];

const greatest: Readonly<Record<string, string>> = {
  int32: "2147483647",
  sint32: "2147483647",
  sfixed32: "2147483647",
  uint32: "4294967295",
  fixed32: "4294967295",
  int64: "9223372036854775807",
  sint64: "9223372036854775807",
  sfixed64: "9223372036854775807",
  uint64: "18446744073709551615",
  fixed64: "18446744073709551615",
};

const numberCases: RuleCase[] = numbers.flatMap((type) => [
  { rule: `${type}.const`, body: scalarField(type, "const: 7"), good: [7], bad: [undefined, 0, 6, 8] },
  { rule: `${type}.gt`, body: scalarField(type, "gt: 2"), good: [3, 100], bad: [undefined, 1, 2] },
  { rule: `${type}.gte`, body: scalarField(type, "gte: 2"), good: [2, 3], bad: [undefined, 1] },
  { rule: `${type}.lt`, body: scalarField(type, "lt: 2"), good: [undefined, 1], bad: [2, 3] },
  { rule: `${type}.lte`, body: scalarField(type, "lte: 2"), good: [undefined, 1, 2], bad: [3] },
  { rule: `${type}.gt_lt`, body: scalarField(type, "gt: 2 lt: 5"), good: [3, 4], bad: [undefined, 2, 5] },
  { rule: `${type}.gte_lte`, body: scalarField(type, "gte: 2 lte: 5"), good: [2, 5], bad: [1, 6] },
  { rule: `${type}.gt_lt_exclusive`, body: scalarField(type, "gt: 5 lt: 2"), good: [undefined, 1, 6], bad: [2, 3, 5] },
  { rule: `${type}.gte_lte_exclusive`, body: scalarField(type, "gte: 5 lte: 2"), good: [1, 2, 5], bad: [3, 4] },
  { rule: `${type}.in`, body: scalarField(type, "in: [1, 7]"), good: [1, 7], bad: [undefined, 2] },
  { rule: `${type}.not_in`, body: scalarField(type, "not_in: [1, 7]"), good: [undefined, 2], bad: [1, 7] },
]);

const greatestCases: RuleCase[] = Object.entries(greatest).map(([type, value]) => ({
  rule: `${type}.const`,
  body: scalarField(type, `const: ${value}`),
  good: [value],
  bad: [0, `${BigInt(value) - 1n}`],
}));

const negativeCases: RuleCase[] = ["int32", "int64", "sint32", "sint64", "sfixed32", "sfixed64", "float", "double"].map(
  (type) => ({
    rule: `${type}.gte_lt`,
    body: scalarField(type, "gte: -3 lt: -1"),
    good: [-3, -2],
    bad: [undefined, -4, -1, 1],
  }),
);

const floatCases: RuleCase[] = ["float", "double"].flatMap((type) => [
  {
    rule: `${type}.finite`,
    body: scalarField(type, "finite: true"),
    good: [undefined, 0.5, -1e30],
    bad: ["NaN", "Infinity", "-Infinity"],
  },
  { rule: `${type}.gte`, body: scalarField(type, "gte: 0.1"), good: [0.1, 0.5, "Infinity"], bad: [0.05, "NaN"] },
  { rule: `${type}.gt`, body: scalarField(type, "gt: 0.1"), good: [0.11], bad: [0.1, "NaN", "-Infinity"] },
  { rule: `${type}.lt`, body: scalarField(type, "lt: 0.1"), good: [0.05, "-Infinity"], bad: [0.1, "NaN"] },
  { rule: `${type}.gt_lt_exclusive`, body: scalarField(type, "gt: 2 lt: 1"), good: [0.5, 2.5], bad: [1.5, "NaN"] },
  { rule: `${type}.const`, body: scalarField(type, "const: 0.1"), good: [0.1], bad: [0.2, "NaN"] },
  { rule: `${type}.in`, body: scalarField(type, "in: [0.1, 0.7]"), good: [0.1, 0.7], bad: [0.2, "NaN"] },
  { rule: `${type}.not_in`, body: scalarField(type, "not_in: [0, 0.7]"), good: [0.2, "NaN"], bad: [0, 0.7] },
]);

/** Characters of two to four bytes in UTF-8; the last is two units in UTF-16. */
const [two, three, four] = ["ä", "€", "😀"];

const stringCases: RuleCase[] = [
  { rule: "string.const", body: scalarField("string", 'const: "ab"'), good: ["ab"], bad: [undefined, "", "a", "AB"] },
  { rule: "string.len", body: scalarField("string", "len: 2"), good: ["ab", four + four], bad: ["", "a", four, "abc"] },
  {
    rule: "string.min_len",
    body: scalarField("string", "min_len: 2"),
    good: ["ab", two + two, four + four, "abc"],
    bad: [undefined, "", "a", four],
  },
  {
    rule: "string.max_len",
    body: scalarField("string", "max_len: 2"),
    good: [undefined, "ab", three + three, four + four],
    bad: ["abc", "a\nb", four + four + four],
  },
  {
    rule: "string.len_bytes",
    body: scalarField("string", "len_bytes: 4"),
    good: ["abcd", four, two + two],
    bad: ["abc", two + three],
  },
  { rule: "string.min_bytes", body: scalarField("string", "min_bytes: 4"), good: ["abcd", four], bad: ["abc", three] },
  {
    rule: "string.max_bytes",
    body: scalarField("string", "max_bytes: 4"),
    good: ["", "abcd", four],
    bad: ["abcde", `${four}a`],
  },
  {
    rule: "string.pattern",
    body: scalarField("string", `pattern: "^[a-z]+(?:-[0-9]{2,3})?$"`),
    good: ["a", "abc-12", "abc-123"],
    bad: [undefined, "", "A", "abc-1", "abc-1234", "abc\n", "\nabc", "x abc"],
  },
  {
    rule: "string.pattern",
    body: scalarField("string", `pattern: "^[^ä€]*(?:\\\\.|${four})$"`),
    good: [".", four, `x\n${four}`, `${four}.`],
    bad: ["", "ä.", `${four}x`],
  },
  {
    rule: "string.prefix",
    body: scalarField("string", `prefix: "a%"`),
    good: ["a%", "a%b"],
    bad: ["", "a", "ab", "ba%"],
  },
  {
    rule: "string.suffix",
    body: scalarField("string", `suffix: "_é"`),
    good: ["_é", "b_é"],
    bad: ["", "é", "xé", "_éb"],
  },
  {
    rule: "string.contains",
    body: scalarField("string", `contains: "a_\\\\"`),
    good: ["a_\\", "ba_\\b"],
    bad: ["", "ab\\", "a_"],
  },
  {
    rule: "string.not_contains",
    body: scalarField("string", `not_contains: "a_"`),
    good: ["", "ab", "a"],
    bad: ["a_", "ba_b"],
  },
  {
    rule: "string.in",
    body: scalarField("string", `in: ["a", "O'Brien"]`),
    good: ["a", "O'Brien"],
    bad: [undefined, "A", "b"],
  },
  { rule: "string.not_in", body: scalarField("string", `not_in: ["a", "ä"]`), good: ["", "A", "b"], bad: ["a", "ä"] },
  {
    rule: "string.email",
    body: scalarField("string", "email: true"),
    good: ["a@b", "a.b+c@example.com", "!#$%&'*+/=?^_`{|}~-@x.y-z.org", `a@${"b".repeat(63)}`],
    bad: ["", "a", "a@", "@b", "a b@c", "a@b.", "a@-b", "a@b-", "ä@b", "a@b\n", `a@${"b".repeat(64)}`],
  },
  {
    rule: "string.hostname",
    body: scalarField("string", "hostname: true"),
    good: ["a", "example.com", "example.com.", "1a", "a1.b-2", "1.2.3.4a", "x".repeat(63), `${"a.".repeat(126)}b`],
    bad: [
      "",
      ".",
      "a..b",
      "-a",
      "a-",
      "a_b",
      "1.2.3.4",
      "a.1",
      "a.1.",
      "ä",
      "a\n",
      "x".repeat(64),
      `${"a.".repeat(126)}bc`,
    ],
  },
  {
    rule: "string.ipv4",
    body: scalarField("string", "ipv4: true"),
    good: ["0.0.0.0", "127.0.0.1", "255.255.255.255", "99.100.199.249"],
    bad: ["", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.", "1.2.3.4/8", "::1", "a", "1.2.3.4\n"],
  },
  {
    rule: "string.uuid",
    body: scalarField("string", "uuid: true"),
    good: ["00000000-0000-0000-0000-000000000000", "0aF45678-9abc-DEf0-1234-56789abcdef0"],
    bad: [
      "",
      "00000000000000000000000000000000",
      "0000000g-0000-0000-0000-000000000000",
      "{00000000-0000-0000-0000-000000000000}",
    ],
  },
  {
    rule: "string.tuuid",
    body: scalarField("string", "tuuid: true"),
    good: ["0aF456789abcDEf0123456789abcdef0"],
    bad: ["", "0aF456789abcDEf0123456789abcdef", "00000000-0000-0000-0000-000000000000"],
  },
  {
    rule: "string.ulid",
    body: scalarField("string", "ulid: true"),
    good: ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "7zzzzzzzzzzzzzzzzzzzzzzzzz"],
    bad: ["", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAU", "01ARZ3NDEKTSV4RRFFQ69G5FA"],
  },
  {
    rule: "string.protobuf_fqn",
    body: scalarField("string", "protobuf_fqn: true"),
    good: ["a", "a.b_2.C", "_"],
    bad: ["", ".a", "a.", "a..b", "2a", "a-b", "ä"],
  },
  {
    rule: "string.protobuf_dot_fqn",
    body: scalarField("string", "protobuf_dot_fqn: true"),
    good: [".a", ".a.b_2.C"],
    bad: ["", "a", ".", ".a.", "..a", ".2a"],
  },
  // A rule that is set to false is none.
  { rule: "string.uuid", body: scalarField("string", "uuid: false"), good: ["", "x"], bad: [] },
];

/** Bytes in JSON. */
const bytes = (...values: number[]): string => Buffer.from(values).toString("base64");

const bytesCases: RuleCase[] = [
  {
    rule: "bytes.const",
    body: scalarField("bytes", `const: "\\x00\\xff"`),
    good: [bytes(0, 255)],
    bad: [undefined, bytes(0), bytes(0, 254)],
  },
  {
    rule: "bytes.len",
    body: scalarField("bytes", "len: 2"),
    good: [bytes(0, 255)],
    bad: [undefined, bytes(0), bytes(1, 2, 3)],
  },
  {
    rule: "bytes.min_len",
    body: scalarField("bytes", "min_len: 2"),
    good: [bytes(0, 0), bytes(1, 2, 3)],
    bad: [undefined, bytes(0)],
  },
  {
    rule: "bytes.max_len",
    body: scalarField("bytes", "max_len: 2"),
    good: [undefined, bytes(0, 255)],
    bad: [bytes(1, 2, 3)],
  },
  {
    rule: "bytes.prefix",
    body: scalarField("bytes", `prefix: "\\x00\\\\"`),
    good: [bytes(0, 92), bytes(0, 92, 1)],
    bad: ["", bytes(0), bytes(1, 0, 92)],
  },
  {
    rule: "bytes.suffix",
    body: scalarField("bytes", `suffix: "\\xff"`),
    good: [bytes(255), bytes(1, 255)],
    bad: ["", bytes(255, 1)],
  },
  {
    rule: "bytes.contains",
    body: scalarField("bytes", `contains: "ab"`),
    good: [bytes(97, 98), bytes(0, 97, 98, 0)],
    bad: ["", bytes(97), bytes(97, 0, 98)],
  },
  {
    rule: "bytes.in",
    body: scalarField("bytes", `in: ["a", "\\x00"]`),
    good: [bytes(97), bytes(0)],
    bad: [undefined, bytes(98)],
  },
  {
    rule: "bytes.not_in",
    body: scalarField("bytes", `not_in: ["a", "\\x00"]`),
    good: [undefined, bytes(98)],
    bad: [bytes(97), bytes(0)],
  },
];

const enumBody = (rules: string): string =>
  `enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; COLOUR_BLUE = 5; } Colour value = 1 [(rules).enum = {${rules}}];`;

const otherCases: RuleCase[] = [
  { rule: "bool.const", body: scalarField("bool", "const: true"), good: [true], bad: [undefined, false] },
  { rule: "bool.const", body: scalarField("bool", "const: false"), good: [undefined, false], bad: [true] },
  { rule: "enum.const", body: enumBody("const: 5"), good: ["COLOUR_BLUE"], bad: [undefined, "COLOUR_RED"] },
  { rule: "enum.defined_only", body: enumBody("defined_only: true"), good: [undefined, 0, 1, 5], bad: [2, -1] },
  { rule: "enum.in", body: enumBody("in: [1, 5]"), good: [1, 5], bad: [undefined, 0, 2] },
  { rule: "enum.not_in", body: enumBody("not_in: [0, 1]"), good: [5, 2], bad: [undefined, 1] },
];

const listCases: RuleCase[] = [
  {
    rule: "repeated.min_items",
    body: "repeated int32 value = 1 [(rules).repeated.min_items = 2];",
    good: [
      [1, 2],
      [0, 0, 0],
    ],
    bad: [undefined, [], [1]],
  },
  {
    rule: "repeated.max_items",
    body: "repeated string value = 1 [(rules).repeated.max_items = 2];",
    good: [undefined, ["", ""]],
    bad: [["", "", ""]],
  },
  ...["int32", "string", "uint64", "bool"].map((type) => ({
    rule: "repeated.unique",
    body: `repeated ${type} value = 1 [(rules).repeated.unique = true];`,
    good: [undefined, type === "bool" ? [true, false] : type === "string" ? ["a", "A", ""] : [1, 2, 0]],
    bad: [type === "bool" ? [true, true] : type === "string" ? ["", "a", ""] : [0, 1, 0]],
  })),
  {
    rule: "repeated.unique",
    body: "repeated bytes value = 1 [(rules).repeated.unique = true];",
    good: [[bytes(1), bytes(1, 0), ""]],
    bad: [[bytes(1), bytes(2), bytes(1)]],
  },
  {
    rule: "repeated.unique",
    body: "repeated uint32 value = 1 [(rules).repeated.unique = true];",
    good: [Array.from({ length: 40 }, (_, index) => index)],
    bad: [[...Array.from({ length: 40 }, (_, index) => index), 7]],
  },
  {
    rule: "repeated.unique",
    body: "enum Size { SIZE_UNSPECIFIED = 0; SIZE_SMALL = 1; } repeated Size value = 1 [(rules).repeated.unique = true];",
    good: [["SIZE_SMALL", "SIZE_UNSPECIFIED", 9]],
    bad: [[9, 1, 9]],
  },
  {
    rule: "string.min_len",
    body: "repeated string value = 1 [(rules).repeated.items.string.min_len = 2];",
    good: [undefined, ["ab", "abc"]],
    bad: [["ab", "a"], [""]],
  },
  {
    rule: "string.min_len",
    body: "repeated string value = 1 [(rules).repeated.items = {ignore: IGNORE_IF_ZERO_VALUE string: {min_len: 2}}];",
    good: [undefined, ["ab", ""]],
    bad: [["a"]],
  },
  {
    rule: "repeated.min_items",
    body: "repeated int32 value = 1 [(rules) = {ignore: IGNORE_IF_ZERO_VALUE repeated: {min_items: 2}}];",
    good: [undefined, [1, 2]],
    bad: [[1]],
  },
  { rule: "required", body: "repeated int32 value = 1 [(rules).required = true];", good: [[0]], bad: [undefined, []] },
];

const mapCases: RuleCase[] = [
  {
    rule: "map.min_pairs",
    body: "map<string, int32> value = 1 [(rules).map.min_pairs = 2];",
    good: [{ a: 1, b: 0 }],
    bad: [undefined, {}, { a: 1 }],
  },
  {
    rule: "map.max_pairs",
    body: "map<int32, string> value = 1 [(rules).map.max_pairs = 1];",
    good: [undefined, { "1": "" }],
    bad: [{ "1": "", "2": "" }],
  },
  {
    rule: "string.min_len",
    body: "map<string, int32> value = 1 [(rules).map.keys.string.min_len = 2];",
    good: [undefined, { ab: 1 }],
    bad: [{ ab: 1, a: 2 }],
  },
  {
    rule: "int64.gt",
    body: "map<int64, bool> value = 1 [(rules).map.keys.int64.gt = 2];",
    good: [undefined, { "3": true }],
    bad: [{ "3": true, "2": true }],
  },
  {
    rule: "bool.const",
    body: "map<bool, int32> value = 1 [(rules).map.keys.bool.const = true];",
    good: [undefined, { true: 1 }],
    bad: [{ false: 1 }],
  },
  {
    rule: "int32.gte",
    body: "map<string, int32> value = 1 [(rules).map.values.int32.gte = 2];",
    good: [undefined, { a: 2 }],
    bad: [{ a: 2, b: 1 }],
  },
  {
    rule: "int32.gte",
    body: "message Part { int32 number = 1 [(rules).int32.gte = 2]; } map<string, Part> value = 1;",
    good: [undefined, { a: { number: 2 } }],
    bad: [{ a: { number: 2 }, b: {} }],
  },
  {
    rule: "required",
    body: "map<string, int32> value = 1 [(rules).required = true];",
    good: [{ "": 0 }],
    bad: [undefined, {}],
  },
];

const presenceCases: RuleCase[] = [
  { rule: "required", body: "string value = 1 [(rules).required = true];", good: ["a"], bad: [undefined, ""] },
  { rule: "required", body: "int64 value = 1 [(rules).required = true];", good: ["1"], bad: [undefined, "0"] },
  { rule: "required", body: "double value = 1 [(rules).required = true];", good: [1, "NaN"], bad: [undefined, 0] },
  { rule: "required", body: "bool value = 1 [(rules).required = true];", good: [true], bad: [undefined, false] },
  { rule: "required", body: "bytes value = 1 [(rules).required = true];", good: [bytes(0)], bad: [undefined, ""] },
  { rule: "required", body: "optional string value = 1 [(rules).required = true];", good: ["a", ""], bad: [undefined] },
  { rule: "required", body: "optional int32 value = 1 [(rules).required = true];", good: [1, 0], bad: [undefined] },
  {
    rule: "required",
    body: "message Part { int32 number = 1; } Part value = 1 [(rules).required = true];",
    good: [{}, { number: 1 }],
    bad: [undefined],
  },
  {
    rule: "required",
    body: "oneof choice { option (buf.validate.oneof).required = true; string value = 1; }",
    good: ["", "a"],
    bad: [undefined],
  },
  {
    rule: "required",
    body: "string value = 1 [(rules) = {required: true ignore: IGNORE_ALWAYS}];",
    good: [undefined, "a"],
    bad: [],
  },
  {
    rule: "string.min_len",
    body: "optional string value = 1 [(rules).string.min_len = 2];",
    good: [undefined, "ab"],
    bad: ["", "a"],
  },
  {
    rule: "string.min_len",
    body: "string value = 1 [(rules) = {ignore: IGNORE_IF_ZERO_VALUE string: {min_len: 2}}];",
    good: [undefined, "", "ab"],
    bad: ["a"],
  },
  {
    rule: "string.min_len",
    body: "optional string value = 1 [(rules) = {ignore: IGNORE_IF_ZERO_VALUE string: {min_len: 2}}];",
    good: [undefined, "ab"],
    bad: ["", "a"],
  },
  {
    rule: "string.min_len",
    body: "string value = 1 [(rules) = {ignore: IGNORE_ALWAYS string: {min_len: 2}}];",
    good: [undefined, "", "a"],
    bad: [],
  },
  {
    rule: "string.min_len",
    body: "string value = 1 [(rules) = {required: true string: {min_len: 2}}];",
    good: ["ab"],
    bad: [undefined, "a"],
  },
  {
    rule: "string.min_len",
    body: "oneof choice { string value = 1 [(rules).string.min_len = 2]; int32 other = 2; }",
    good: [undefined, "ab"],
    bad: ["", "a"],
  },
  {
    rule: "int32.gte",
    body: "message Part { int32 number = 1 [(rules).int32.gte = 2]; } Part value = 1;",
    good: [undefined, { number: 2 }],
    bad: [{}, { number: 1 }],
  },
  {
    rule: "int32.gte",
    body: "message Part { int32 number = 1 [(rules).int32.gte = 2]; } Part value = 1 [(rules).ignore = IGNORE_ALWAYS];",
    good: [undefined, {}, { number: 1 }],
    bad: [],
  },
  {
    rule: "int32.gte",
    body: "message Part { int32 number = 1 [(rules).int32.gte = 2]; } repeated Part value = 1;",
    good: [undefined, [{ number: 2 }]],
    bad: [[{ number: 2 }, {}]],
  },
  {
    rule: "string.min_len",
    body: "google.protobuf.StringValue value = 1 [(rules).string.min_len = 2];",
    good: [undefined, "ab"],
    bad: ["", "a"],
  },
  {
    rule: "int64.gt",
    body: "google.protobuf.Int64Value value = 1 [(rules).int64.gt = 2];",
    good: [undefined, "3"],
    bad: ["0", "2"],
  },
  {
    rule: "bool.const",
    body: "google.protobuf.BoolValue value = 1 [(rules) = {required: true bool: {const: true}}];",
    good: [true],
    bad: [undefined, false],
  },
];

const exclusive = "string value = 1; int32 other = 2;";
const exclusiveCases: RuleCase[] = [
  {
    rule: "message.oneof",
    body: `option (buf.validate.message).oneof = {fields: ["value", "other"] required: true}; ${exclusive}`,
    good: ["a"],
    bad: [undefined, ""],
  },
  {
    rule: "string.min_len",
    body: `option (buf.validate.message).oneof = {fields: ["value", "other"]};
      string value = 1 [(rules).string.min_len = 2]; int32 other = 2;`,
    good: [undefined, "", "ab"],
    bad: ["a"],
  },
];

const timeCases: RuleCase[] = [
  {
    rule: "duration.gte",
    body: "google.protobuf.Duration value = 1 [(rules).duration.gte = {seconds: 1 nanos: 500000000}];",
    good: [undefined, "1.5s", "2s", "315576000000s"],
    bad: ["1.499999s", "0s", "-2s"],
  },
  {
    rule: "duration.lte",
    body: "google.protobuf.Duration value = 1 [(rules).duration.lte = {seconds: 1}];",
    good: [undefined, "1s", "-5s"],
    bad: ["1.000001s"],
  },
  {
    rule: "timestamp.gt_lte",
    body: "google.protobuf.Timestamp value = 1 [(rules).timestamp = {gt: {seconds: 0} lte: {seconds: 1}}];",
    good: [undefined, "1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:01Z"],
    bad: ["1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:01.000001Z"],
  },
  {
    rule: "duration.gt_lt",
    body: "google.protobuf.Duration value = 1 [(rules).duration = {gt: {seconds: -1 nanos: -500000000} lt: {seconds: 1}}];",
    good: ["0s", "-1.499999s", "0.999999s"],
    bad: ["-1.5s", "1s"],
  },
  {
    rule: "duration.gt_lt_exclusive",
    body: "google.protobuf.Duration value = 1 [(rules).duration = {gt: {seconds: 5} lt: {seconds: 1}}];",
    good: ["0s", "6s"],
    bad: ["1s", "3s", "5s"],
  },
  {
    rule: "timestamp.gte",
    body: "google.protobuf.Timestamp value = 1 [(rules).timestamp.gte = {seconds: 1700000000}];",
    good: [undefined, "2023-11-14T22:13:20Z", "2026-01-01T00:00:00.000001Z"],
    bad: ["2023-11-14T22:13:19.999999Z", "0001-01-01T00:00:00Z"],
  },
  {
    rule: "timestamp.lt",
    body: "google.protobuf.Timestamp value = 1 [(rules).timestamp.lt = {seconds: 1700000000 nanos: 1000}];",
    good: [undefined, "2023-11-14T22:13:20Z"],
    bad: ["2023-11-14T22:13:20.000001Z"],
  },
  {
    rule: "required",
    body: "google.protobuf.Timestamp value = 1 [(rules).required = true];",
    good: ["1970-01-01T00:00:00Z"],
    bad: [undefined],
  },
];

/** All cases. */
export const ruleCases: readonly RuleCase[] = [
  ...numberCases,
  ...greatestCases,
  ...negativeCases,
  ...floatCases,
  ...stringCases,
  ...bytesCases,
  ...otherCases,
  ...listCases,
  ...mapCases,
  ...presenceCases,
  ...exclusiveCases,
  ...timeCases,
];

/** The package of the messages: see {@link caseName}. */
export const rulesPackage = "acme.rules.v1";

/** The name of a case's message, `Case0` for the first. Its topic and subject are that name in lower case. */
export function caseName(index: number): string {
  return `Case${index}`;
}

/** A proto file with one message for each case. */
export function rulesProto(): string {
  const messages = ruleCases.map(({ body }, index) => {
    const name = caseName(index);
    const topic = name.toLowerCase();
    return `message ${name} {
      option (hawser.v1.topic) = {topic: "${topic}" subject: "rules.${topic}"};
      ${body.replaceAll("(rules)", "(buf.validate.field)")}
    }`;
  });
  return `syntax = "proto3";
    package ${rulesPackage};
    import "buf/validate/validate.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    import "hawser/v1/topic.proto";
    ${messages.join("\n")}`;
}
