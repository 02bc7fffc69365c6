import { type RefusalCase, ruled, table } from "./spec-text.js";

/** Rules that do not fit the field, or one another. */
export const ruleCases: readonly RefusalCase[] = [
  {
    name: "a length of a number",
    proto: ruled("int32 a = 2", "max_bytes: 4"),
    says: "message Foo.a: rule max_bytes does not apply to int32, which takes min, max",
  },
  {
    name: "a range of a string",
    proto: ruled("string a = 2", "min: 4"),
    says: "message Foo.a: rule min does not apply to string, which takes min_bytes, max_bytes, pattern, pattern_means, in",
  },
  {
    name: "a pattern of bytes",
    proto: ruled("bytes a = 2", 'pattern: "^a$"'),
    says: "message Foo.a: rule pattern does not apply to bytes, which takes min_bytes, max_bytes",
  },
  {
    name: "a rule of a bool",
    proto: ruled("bool a = 2", 'in: "true"'),
    says: "message Foo.a: rule in does not apply to bool, which takes no rules",
  },
  {
    name: "a number of elements of what is one",
    proto: ruled("string a = 2", "max_items: 1"),
    says: "message Foo.a: rule max_items does not apply to string, which takes min_bytes, max_bytes, pattern, pattern_means, in",
  },
  {
    name: "a rule on the elements of a list",
    proto: ruled("repeated string a = 2", "max_bytes: 1"),
    says: "message Foo.a: rule max_bytes does not apply to repeated string, which takes max_items",
  },
  {
    name: "required of what is never absent",
    proto: ruled("string a = 2", "required: true"),
    says: "message Foo.a: rule required does not apply to string, which takes min_bytes, max_bytes, pattern, pattern_means, in",
  },
  {
    name: "a string's rule on a jsonb column",
    proto: table(
      'int32 id = 1; string a = 2 [(hawser.spec.v1.column) = {type: "jsonb"}, (hawser.spec.v1.rules) = {max_bytes: 4}];',
    ),
    says: "message Foo.a: rule max_bytes does not apply to string, which takes no rules",
  },
  {
    name: "a limit that the column's type cannot reach",
    proto: table('int32 id = 1 [(hawser.spec.v1.column) = {type: "smallint"}, (hawser.spec.v1.rules) = {max: 40000}];'),
    says: "message Foo.id: rule max: 40000 lies outside the type, -32768 to 32767",
  },
  {
    name: "a least value above the greatest",
    proto: ruled("int32 a = 2", "min: 2 max: 1"),
    says: "message Foo.a: rule min: 2 is above max, 1",
  },
  {
    name: "a least length above the greatest",
    proto: ruled("string a = 2", "min_bytes: 2 max_bytes: 1"),
    says: "message Foo.a: rule min_bytes: 2 is above max_bytes, 1",
  },
  {
    name: "a length that no value has",
    proto: ruled("string a = 2", "max_bytes: 1073741825"),
    says: "message Foo.a: rule max_bytes: 1073741825 is more than 1 GiB, which no value can have",
  },
  {
    name: "a pattern that nobody explains",
    proto: ruled("string a = 2", 'pattern: "^a$"'),
    says: 'message Foo.a: rule pattern_means: say what the pattern means, beginning with "must "',
  },
  {
    name: "an explanation without a pattern",
    proto: ruled("string a = 2", 'pattern_means: "must be a"'),
    says: "message Foo.a: rule pattern_means: there is no pattern",
  },
  {
    name: "a pattern that Postgres reads otherwise",
    proto: ruled("string a = 2", 'pattern: "^\\\\d+$" pattern_means: "must be digits"'),
    says: 'message Foo.a: rule pattern: "^\\d+$" has "\\d" where JavaScript and Postgres may differ; use only classes, \\uXXXX, groups and quantifiers',
  },
  {
    name: "rules of an unknown name",
    proto: ruled("string a = 2", 'named: "stret"').replace("message", `${named()} message`),
    says: 'message Foo.a: there are no rules named "stret"; there are street',
  },
  {
    name: "a rule beside rules of a name that have it",
    proto: ruled("string a = 2", 'named: "street" max_bytes: 4').replace("message", `${named()} message`),
    says: 'message Foo.a: rule max_bytes is one of "street" already',
  },
  {
    name: "a contradiction of a rule and rules of a name",
    proto: ruled("string a = 2", 'named: "street" min_bytes: 9').replace("message", `${named()} message`),
    says: "message Foo.a: rule min_bytes: 9 is above max_bytes, 8",
  },
  {
    name: "rules of a name on a field of another type",
    proto: ruled("int32 a = 2", 'named: "street"').replace("message", `${named()} message`),
    says: "message Foo.a: rule max_bytes does not apply to int32, which takes min, max",
  },
  {
    name: "two rules of one name",
    proto: `${named()} ${named()}`,
    says: 'file: name of rules "street" is taken by file in FILE; choose another',
  },
  {
    name: "rules of a name with a range",
    proto: named('name: "street" about: "A street." rules: {min: 4}'),
    says: "file: rule min does not apply to named rules, which takes min_bytes, max_bytes, pattern, pattern_means, in",
  },
  {
    name: "rules of a name that say not what they are about",
    proto: named('name: "street" rules: {max_bytes: 4}'),
    says: 'file: named_rules "street": give a name in lower_snake_case, about, and rules',
  },
];

/** Rules with a name. */
function named(option = 'name: "street" about: "A street." rules: {max_bytes: 8}'): string {
  return `option (hawser.spec.v1.named_rules) = {${option}};`;
}
