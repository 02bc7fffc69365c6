import { type RefusalCase, wired } from "./spec-text.js";

const field = "(buf.validate.field)";

/** Rules of messages that are sent. */
export const wireRuleCases: readonly RefusalCase[] = [
  {
    name: "rules of the spec in a message",
    proto: wired("int32 a = 1", "(hawser.spec.v1.rules) = {min: 1}"),
    says: "message Foo.a: the option rules has no meaning here; messages that are sent have rules of buf.validate",
  },
  {
    name: "a wire rule of another type",
    proto: wired("int32 a = 1", `${field}.int64.gte = 1`),
    says: "message Foo.a: rule int64.gte is not generated for int32, which takes int32.gte, int32.lte",
  },
  {
    name: "a wire rule that is not generated",
    proto: wired("int32 a = 1", `${field}.int32.gt = 1`),
    says: "message Foo.a: rule int32.gt is not generated for int32, which takes int32.gte, int32.lte",
  },
  {
    name: "a wire rule of a text that is not generated",
    proto: wired("string a = 1", `${field}.string.prefix = "a"`),
    says: "message Foo.a: rule string.prefix is not generated for string, which takes string.min_bytes, string.max_bytes, string.pattern, string.not_contains",
  },
  {
    name: "a wire rule of a double",
    proto: wired("double a = 1", `${field}.double.lte = 1`),
    says: "message Foo.a: rule double.lte is not generated for double, which takes no rules",
  },
  {
    name: "a wire rule of a map",
    proto: wired("map<string, bytes> a = 1", `${field}.map.max_pairs = 1`),
    says: "message Foo.a: rule map.max_pairs is not generated for map<string, bytes>, which takes no rules",
  },
  {
    name: "a wire rule of the elements of a list",
    proto: wired("repeated string a = 1", `${field}.repeated.items.string.max_bytes = 1`),
    says: "message Foo.a: rule repeated.items.string.max_bytes is not generated for repeated string, which takes repeated.min_items, repeated.max_items",
  },
  {
    name: "required of a wire text",
    proto: wired("string a = 1", `${field}.required = true`),
    says: "message Foo.a: rule required is not generated for string, which takes string.min_bytes, string.max_bytes, string.pattern, string.not_contains",
  },
  {
    name: "a wire range without a value",
    proto: wired("uint32 a = 1", `${field}.uint32 = {gte: 2 lte: 1}`),
    says: "message Foo.a: rule uint32.gte: 2 is above the greatest value, 1",
  },
  {
    name: "a wire length without a value",
    proto: wired("string a = 1", `${field}.string = {min_bytes: 2 max_bytes: 1 not_contains: "\\000"}`),
    says: "message Foo.a: rule string.min_bytes: 2 is above the greatest value, 1",
  },
  {
    name: "a wire text that may contain NUL",
    proto: wired("string a = 1", `${field}.string.max_bytes = 1`),
    says: 'message Foo.a: TypeScript refuses NUL in a text with rules; give the rule string.not_contains: "\\000"',
  },
  {
    name: "a wire pattern that nobody explains",
    proto: wired("string a = 1", `${field}.string = {pattern: "^[\\\\x01-\\\\x1f]$" not_contains: "\\000"}`),
    says: 'message Foo.a: rule string.pattern: no named rules have these limits and the pattern "^[\\u0001-\\u001f]$"; add some, which say what it means',
  },
  {
    name: "a safe integer without a wire rule",
    proto: wired("uint64 a = 1", "jstype = JS_NUMBER"),
    says: "message Foo.a: jstype = JS_NUMBER limits the field; give the rule uint64.lte: at most 9007199254740991",
  },
  {
    name: "a safe integer with too wide a wire rule",
    proto: wired("uint64 a = 1", `jstype = JS_NUMBER, ${field}.uint64.lte = 9007199254740992`),
    says: "message Foo.a: jstype = JS_NUMBER limits the field; give the rule uint64.lte: at most 9007199254740991",
  },
  {
    name: "a rule between fields that is not generated",
    proto: 'message Foo { option (buf.validate.message).oneof = {fields: "a"}; int32 a = 1; }',
    says: "message Foo: rule oneof is not generated; use a oneof, or a rule in CEL",
  },
  {
    name: "a rule between fields that nobody explains",
    proto: 'message Foo { option (buf.validate.message).cel = {id: "a" expression: "this.a > 0"}; int32 a = 1; }',
    says: 'message Foo: a rule in CEL needs a message: "… must …"',
  },
  {
    name: "a wire enum whose numbers have a gap",
    proto: `${wired("Bar a = 1", `${field}.enum = {defined_only: true not_in: 1}`)}
      enum Bar { BAR_UNSPECIFIED = 0; BAR_ONE = 1; BAR_TWO = 2; }`,
    says: "message Foo.a: rules of an enum are enum.defined_only, and enum.not_in for its least or greatest numbers",
  },
  {
    name: "a wire enum with unknown numbers",
    proto: `${wired("Bar a = 1", `${field}.enum.not_in = 0`)} enum Bar { BAR_UNSPECIFIED = 0; BAR_ONE = 1; }`,
    says: "message Foo.a: rules of an enum are enum.defined_only, and enum.not_in for its least or greatest numbers",
  },
];
