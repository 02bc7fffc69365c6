import { type RefusalCase, setting } from "./spec-text.js";

/** Settings and their defaults. */
export const settingCases: readonly RefusalCase[] = [
  {
    name: "a default outside its own range",
    proto: setting("uint32 a = 1", 'default: "11"', "min: 1 max: 10"),
    says: "message Foo.a: default 11 breaks the setting's own rule: must be 1 to 10",
  },
  {
    name: "a default outside the type",
    proto: setting("uint32 a = 1", 'default: "-1"', "min: 0 max: 10"),
    says: "message Foo.a: default -1 lies outside the type, 0 to 4294967295",
  },
  {
    name: "a default of another type",
    proto: setting("bool a = 1", 'default: "1"'),
    says: "message Foo.a: default 1 is not a boolean",
  },
  {
    name: "a default that is no JSON",
    proto: setting("string a = 1", 'default: "peer"'),
    says: 'message Foo.a: default peer is not JSON; write a number as 5000, a string as "\\"text\\"", a boolean as true',
  },
  {
    name: "a default that is no integer",
    proto: setting("uint32 a = 1", 'default: "1.5"', "min: 1 max: 10"),
    says: "message Foo.a: default 1.5 is not an integer below 2^53",
  },
  {
    name: "a default that is too long",
    proto: setting("string a = 1", 'default: "\\"äöü\\""', "max_bytes: 5"),
    says: 'message Foo.a: default "äöü" breaks the setting\'s own rule: must be at most 5 bytes long in UTF-8',
  },
  {
    name: "a default that is not among the values",
    proto: setting("string a = 1", 'default: "\\"c\\""', 'in: ["a", "b"]'),
    says: 'message Foo.a: default "c" breaks the setting\'s own rule: must be one of "a", "b"',
  },
  {
    name: "a default against the pattern",
    proto: setting("string a = 1", 'default: "\\"c\\""', 'pattern: "^[ab]$" pattern_means: "must be a or b"'),
    says: 'message Foo.a: default "c" breaks the setting\'s own rule: must be a or b',
  },
  {
    name: "a setting without default that must be there",
    proto: setting("bool a = 1", ""),
    says: "message Foo.a: the setting has no default; give it one, or make it optional",
  },
  {
    name: "a number without a range",
    proto: setting("uint32 a = 1", 'default: "1"', "min: 1"),
    says: "message Foo.a: a setting that is a number needs a range: rules with min and max",
  },
  {
    name: "a range that a number cannot hold exactly",
    proto: setting("uint64 a = 1", 'default: "1"', "min: 1 max: 9007199254740992"),
    says: "message Foo.a: rule max: 9007199254740992 is above 2^53 - 1, which a setting cannot hold exactly",
  },
  {
    name: "a list as a setting",
    proto: setting("repeated string a = 1", 'default: "[]"'),
    says: "message Foo.a: a setting cannot be repeated string; use an integer type, bool or string",
  },
  {
    name: "a field of settings that is no setting",
    proto: 'message Foo { option (hawser.spec.v1.settings) = {title: "Foo"}; bool a = 1; }',
    says: "message Foo.a: a field of a group of settings needs the option setting",
  },
  {
    name: "a fixed setting in a part of the settings page",
    proto: `message Foo { option (hawser.spec.v1.settings) = {title: "Foo" fixed: true};
      bool a = 1 [(hawser.spec.v1.setting) = {default: "true" part: SETTING_PART_TUNING}]; }`,
    says: "message Foo.a: a setting of a fixed group has no part; remove part",
  },
  {
    name: "a setting of users among the limits",
    proto: setting("bool a = 1", 'default: "true" limit: "A"'),
    says: "message Foo.a: limit is for settings of a fixed group; remove limit",
  },
  {
    name: "settings without a title",
    proto: "message Foo { option (hawser.spec.v1.settings) = {}; }",
    says: "message Foo: settings: the group has no title",
  },
];
