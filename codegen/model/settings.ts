import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { rangeText } from "../validators/runtime/violation.js";
import { commentOf } from "./comments.js";
import { camelCase } from "./names.js";
import type { SettingsOption, SpecOptions } from "./options.js";
import { type Rules, readRules } from "./rules.js";
import { SpecError } from "./spec-error.js";
import { integerRangeOf, specTypeOf, type ValueKind, valueKindOf } from "./value-kind.js";

/** Group of settings: users can change either all of them or none of them. */
export interface SettingGroup {
  readonly message: DescMessage;
  readonly title: string;
  readonly comment: string;
  readonly fixed: boolean;
  readonly settings: readonly Setting[];
}

/** Parts of the settings page, indexed by their numbers in the spec. */
const settingParts = ["public", "tuning", "database"] as const;

export type SettingPart = (typeof settingParts)[number];

export interface Setting {
  readonly field: DescField;
  /** Name in TypeScript, such as `creditBytes`. */
  readonly name: string;
  readonly comment: string;
  readonly kind: "number" | "boolean" | "string";
  /** Absent for an optional setting, whose absence has a meaning of its own. */
  readonly default?: SettingValue;
  readonly unit: string;
  readonly rules: Rules;
  readonly part: SettingPart;
  /** Name in the table of limits; empty if the table omits it. */
  readonly limit: string;
}

export type SettingValue = number | boolean | string;

/**
 * Reads the group that a message describes.
 *
 * @throws SpecError if a setting has no option, an unsupported type, a default outside its own range, or no range
 * although it is a number that users set.
 */
export function readSettingGroup(
  message: DescMessage,
  { title, fixed }: SettingsOption,
  options: SpecOptions,
): SettingGroup {
  return {
    message,
    title,
    comment: commentOf(message),
    fixed,
    settings: message.fields.map((field) => readSetting(field, fixed, options)),
  };
}

function readSetting(field: DescField, fixed: boolean, options: SpecOptions): Setting {
  const option = options.setting(field);
  if (option === undefined) throw new SpecError(field, "a field of a group of settings needs the option setting");
  const kind = settingKind(field);
  const range = integerRangeOf(field);
  const rules = readRules(field, options, { kind: valueKindOf(field)!, repeated: false, range });
  if (rules.max !== undefined && rules.max > greatestExactInteger) {
    throw new SpecError(field, `rule max: ${rules.max} is above 2^53 - 1, which a setting cannot hold exactly`);
  }
  if (kind === "number" && !fixed && (rules.min === undefined || rules.max === undefined)) {
    throw new SpecError(field, "a setting that is a number needs a range: rules with min and max");
  }
  return {
    field,
    name: camelCase(field.name),
    comment: commentOf(field),
    kind,
    ...(option.default === "" ? {} : { default: readDefault(field, option.default, rules) }),
    unit: option.unit,
    rules,
    part: settingParts[option.part]!,
    limit: option.limit,
  };
}

function settingKind(field: DescField): Setting["kind"] {
  const kinds: Partial<Record<ValueKind, Setting["kind"]>> = {
    number: "number",
    bigint: "number",
    boolean: "boolean",
    string: "string",
  };
  const kind = field.fieldKind === "scalar" ? kinds[valueKindOf(field) ?? "real"] : undefined;
  if (kind === undefined) {
    throw new SpecError(field, `a setting cannot be ${specTypeOf(field)}; use an integer type, bool or string`);
  }
  return kind;
}

/** Reads a default from JSON. @throws SpecError if it is a number outside the setting's own range */
function readDefault(field: DescField, json: string, rules: Rules): SettingValue {
  const value: SettingValue = JSON.parse(json);
  const isOutside = typeof value === "number" && (value < (rules.min ?? -Infinity) || value > (rules.max ?? Infinity));
  if (isOutside) throw new SpecError(field, `default ${json} breaks the setting's own rule: ${rangeText(rules)!.rule}`);
  return value;
}

/** Greatest value of a setting: settings are numbers in TypeScript, also where the field has 64 bits. */
const greatestExactInteger = BigInt(Number.MAX_SAFE_INTEGER);
