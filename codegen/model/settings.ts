import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { commentOf } from "./comments.js";
import { refuseOption } from "./foreign-option.js";
import { camelCase } from "./names.js";
import type { SettingOption, SpecOptions } from "./options.js";
import { type Rules, readRules } from "./rules.js";
import { checkSettingDefault, greatestExactInteger } from "./setting-value.js";
import { SpecError } from "./spec-error.js";
import { integerRangeOf, specTypeOf, type ValueKind, valueKindOf } from "./value-kind.js";

/** A group of settings: either all of them are the user's, or all are fixed. */
export interface SettingGroup {
  readonly message: DescMessage;
  readonly title: string;
  readonly comment: string;
  readonly fixed: boolean;
  readonly settings: readonly Setting[];
}

export interface Setting {
  readonly field: DescField;
  /** The name in TypeScript: `creditBytes`. */
  readonly name: string;
  readonly comment: string;
  readonly kind: "number" | "boolean" | "string";
  /** Absent: the setting may be left out, which means something of its own. */
  readonly default?: SettingValue;
  readonly unit: string;
  readonly rules: Rules;
}

export type SettingValue = number | boolean | string;

/**
 * Reads the group that a message describes.
 *
 * @throws SpecError if a setting has no option, a type that no setting can have, no default although it is not
 * `optional`, a default outside its own rules, or no range although it is a number that users set.
 */
export function readSettingGroup(message: DescMessage, title: string, options: SpecOptions): SettingGroup {
  if (title === "") {
    throw new SpecError(message, "settings: the group has no title");
  }
  const fixed = message.fields.map((field) => settingOption(field, options).fixed);
  if (fixed.some((value) => value !== fixed[0])) {
    throw new SpecError(
      message,
      "some settings are fixed and some are not; put the fixed ones into a group of their own",
    );
  }
  return {
    message,
    title,
    comment: commentOf(message),
    fixed: fixed[0] ?? false,
    settings: message.fields.map((field) => readSetting(field, options)),
  };
}

function readSetting(field: DescField, options: SpecOptions): Setting {
  const option = settingOption(field, options);
  const kind = settingKind(field);
  const range = integerRangeOf(field);
  const rules = readRules(field, options, { kind: valueKindOf(field)!, repeated: false, range });
  if (rules.max !== undefined && rules.max > greatestExactInteger) {
    throw new SpecError(field, `rule max: ${rules.max} is above 2^53 - 1, which a setting cannot hold exactly`);
  }
  if (kind === "number" && !option.fixed && (rules.min === undefined || rules.max === undefined)) {
    throw new SpecError(field, "a setting that is a number needs a range: rules with min and max");
  }
  if (option.default === "" && (option.fixed || !field.proto.proto3Optional)) {
    throw new SpecError(field, "the setting has no default; give it one, or make it optional");
  }
  return {
    field,
    name: camelCase(field.name),
    comment: commentOf(field),
    kind,
    ...(option.default === "" ? {} : { default: checkSettingDefault(field, kind, option.default, rules, range) }),
    unit: option.unit,
    rules,
  };
}

function settingOption(field: DescField, options: SpecOptions): SettingOption {
  refuseOption(field, "column", options.column(field));
  const option = options.setting(field);
  if (option === undefined) {
    throw new SpecError(field, "a field of a group of settings needs the option setting");
  }
  return option;
}

function settingKind(field: DescField): Setting["kind"] {
  const kinds: Partial<Record<ValueKind, Setting["kind"]>> = {
    number: "number",
    bigint: "number",
    boolean: "boolean",
    string: "string",
  };
  if (field.oneof !== undefined) {
    throw new SpecError(field, `a setting cannot be part of oneof ${field.oneof.name}`);
  }
  const kind = field.fieldKind === "scalar" ? kinds[valueKindOf(field) ?? "real"] : undefined;
  if (kind === undefined) {
    throw new SpecError(field, `a setting cannot be ${specTypeOf(field)}; use an integer type, bool or string`);
  }
  return kind;
}
