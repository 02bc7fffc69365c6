import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { bytesText, rangeText, valuesText } from "../validators/runtime/violation.js";
import { commentOf } from "./comments.js";
import { refuseOption } from "./foreign-option.js";
import { camelCase } from "./names.js";
import type { SettingOption, SettingsOption, SpecOptions } from "./options.js";
import { type Rules, readRules } from "./rules.js";
import { SpecError } from "./spec-error.js";
import { type IntegerRange, integerRangeOf, specTypeOf, type ValueKind, valueKindOf } from "./value-kind.js";

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
 * @throws SpecError if a setting has no option, an unsupported type, no default although it is not `optional`, a
 * default outside its own rules, or no range although it is a number that users set.
 */
export function readSettingGroup(
  message: DescMessage,
  { title, fixed }: SettingsOption,
  options: SpecOptions,
): SettingGroup {
  if (title === "") {
    throw new SpecError(message, "settings: the group has no title");
  }
  return {
    message,
    title,
    comment: commentOf(message),
    fixed,
    settings: message.fields.map((field) => readSetting(field, fixed, options)),
  };
}

function readSetting(field: DescField, fixed: boolean, options: SpecOptions): Setting {
  const option = settingOption(field, options);
  if (fixed && option.part !== 0) {
    throw new SpecError(field, "a setting of a fixed group has no part; remove part");
  }
  if (!fixed && option.limit !== "") {
    throw new SpecError(field, "limit is for settings of a fixed group; remove limit");
  }
  const kind = settingKind(field);
  const range = integerRangeOf(field);
  const rules = readRules(field, options, { kind: valueKindOf(field)!, repeated: false, range });
  if (rules.max !== undefined && rules.max > greatestExactInteger) {
    throw new SpecError(field, `rule max: ${rules.max} is above 2^53 - 1, which a setting cannot hold exactly`);
  }
  if (kind === "number" && !fixed && (rules.min === undefined || rules.max === undefined)) {
    throw new SpecError(field, "a setting that is a number needs a range: rules with min and max");
  }
  if (option.default === "" && (fixed || !field.proto.proto3Optional)) {
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
    part: settingParts[option.part]!,
    limit: option.limit,
  };
}

function settingOption(field: DescField, options: SpecOptions): SettingOption {
  refuseOption(field, "column", options.column(field));
  refuseOption(field, "metric", options.metric(field));
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

/** Greatest value of a setting: settings are numbers in TypeScript, also where the field has 64 bits. */
const greatestExactInteger = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Reads a setting's default from JSON.
 *
 * @throws SpecError if the text is not JSON, has another type than the field, or breaks the setting's own rules.
 */
function checkSettingDefault(
  field: DescField,
  kind: Setting["kind"],
  json: string,
  rules: Rules,
  range: IntegerRange | undefined,
): SettingValue {
  const problem = (text: string) => new SpecError(field, `default ${json} ${text}`);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw problem('is not JSON; write a number as 5000, a string as "\\"text\\"", a boolean as true');
  }
  if (typeof value !== kind) {
    throw problem(`is not a ${kind}`);
  }
  if (typeof value === "number") {
    checkNumber(value, rules, range, problem);
  } else if (typeof value === "string") {
    checkText(value, rules, problem);
  }
  return value as SettingValue;
}

type Problem = (text: string) => SpecError;

function checkNumber(value: number, rules: Rules, range: IntegerRange | undefined, problem: Problem): void {
  if (!Number.isSafeInteger(value)) {
    throw problem("is not an integer below 2^53");
  }
  const integer = BigInt(value);
  if (range !== undefined && (integer < range.min || integer > range.max)) {
    throw problem(`lies outside the type, ${range.min} to ${range.max}`);
  }
  if ((rules.min !== undefined && integer < rules.min) || (rules.max !== undefined && integer > rules.max)) {
    throw problem(`breaks the setting's own rule: ${rangeText(rules)!.rule}`);
  }
}

function checkText(value: string, rules: Rules, problem: Problem): void {
  const bytes = Buffer.byteLength(value);
  if (bytes < (rules.minBytes ?? 0) || bytes > (rules.maxBytes ?? Number.POSITIVE_INFINITY)) {
    throw problem(`breaks the setting's own rule: ${bytesText(rules, "string")!.rule}`);
  }
  if (rules.in !== undefined && !rules.in.includes(value)) {
    throw problem(`breaks the setting's own rule: ${valuesText(rules.in).rule}`);
  }
  if (rules.pattern !== undefined && !new RegExp(rules.pattern.source, "u").test(value)) {
    throw problem(`breaks the setting's own rule: ${rules.pattern.means}`);
  }
}
