/**
 * Rules of `buf.validate` in a schema, as data from which the checks in TypeScript are compiled and those in SQL
 * generated. The supported rules are those that mean the same in TypeScript, in Postgres and in protovalidate. All
 * others are refused with an error that names the rule.
 */

import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescOneof,
  getOption,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { isReflectList, isReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { type Duration, isWrapperDesc, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { FieldRules as FieldOption, Ignore } from "../../../generated/ts/options/buf/validate/validate_pb.js";
import { HawserError } from "../../foundation/errors/index.js";
import { type FormatName, type FormatPattern, formatPatterns } from "./formats.js";
import { patternProblem } from "./pattern.js";
import { validateOptions } from "./validate-options.js";

/** Value in a rule: 64-bit integers are bigints. */
export type RuleValue = string | number | bigint | boolean | Uint8Array;

/** End of a range. */
export interface Limit {
  readonly value: number | bigint;
  /** True if the value itself is allowed. */
  readonly inclusive: boolean;
}

/** Rule of a value. `id` is its name in protovalidate: `string.min_len`. */
export type Rule = { readonly id: string } & (
  | { readonly kind: "const"; readonly value: RuleValue }
  | { readonly kind: "in" | "notIn"; readonly values: readonly RuleValue[] }
  /**
   * Numbers; for a Duration or Timestamp nanoseconds, as a bigint. At least one end is set. `outside`: the value must
   * lie above `lower` or below `upper`, instead of between them. NaN is in no range.
   */
  | {
      readonly kind: "range";
      readonly lower: Limit | undefined;
      readonly upper: Limit | undefined;
      readonly outside: boolean;
    }
  | { readonly kind: "finite" }
  /** Lengths in code points, or in bytes of UTF-8. */
  | {
      readonly kind: "length";
      readonly unit: "characters" | "bytes";
      readonly limit: "exactly" | "atLeast" | "atMost";
      readonly value: number;
    }
  /** Pattern in the dialect of pattern.ts: JavaScript with the flag `u`, Postgres and RE2 interpret it alike. */
  | { readonly kind: "pattern"; readonly pattern: string }
  | ({ readonly kind: "format"; readonly format: FormatName } & FormatPattern)
  | { readonly kind: "prefix" | "suffix" | "contains" | "notContains"; readonly value: string | Uint8Array }
  | { readonly kind: "definedOnly"; readonly numbers: readonly number[] }
);

// The values of the enum are in a module that makes all options.
const ignoreIfZero: Ignore.IF_ZERO_VALUE = 1;
const ignoreAlways: Ignore.ALWAYS = 3;

/** Condition under which a value is not checked. `ifZero`: if the field is not set, or an element is zero. */
type IgnoreName = "unspecified" | "ifZero" | "always";

/** Type of the value of a field, of an element, or of a key. */
type ValueType =
  | { readonly kind: "scalar"; readonly scalar: ScalarType }
  | { readonly kind: "enum"; readonly enum: DescEnum }
  /** `wrapped`: the message is a wrapper, such as StringValue, and the rules apply to the wrapped value. */
  | { readonly kind: "message"; readonly message: DescMessage; readonly wrapped: ScalarType | undefined };

/** Rules of one value. A message also has the rules of its own fields: see {@link rulesOf}. */
export interface ValueRules {
  readonly type: ValueType;
  readonly ignore: IgnoreName;
  readonly rules: readonly Rule[];
}

export type FieldRules = {
  readonly field: DescField;
  /** True if the field must be set: have an element, or, without presence, a value other than zero. */
  readonly required: boolean;
  readonly ignore: IgnoreName;
} & (
  | { readonly shape: "single"; readonly value: ValueRules }
  | {
      readonly shape: "list";
      readonly minItems: number | undefined;
      readonly maxItems: number | undefined;
      /** True if no element may occur twice. Elements are not messages, floats or doubles. */
      readonly unique: boolean;
      readonly items: ValueRules;
    }
  | {
      readonly shape: "map";
      readonly minPairs: number | undefined;
      readonly maxPairs: number | undefined;
      readonly keys: ValueRules;
      readonly values: ValueRules;
    }
);

/** Rules of a message. Fields without rules are included. */
export interface MessageRules {
  readonly message: DescMessage;
  readonly fields: readonly FieldRules[];
  /** Oneofs that must have a field set. */
  readonly requiredOneofs: readonly DescOneof[];
  /** Groups of which at most one field may be set; with `required`, exactly one. */
  readonly exclusiveFields: readonly { readonly fields: readonly DescField[]; readonly required: boolean }[];
}

const read = new WeakMap<DescMessage, MessageRules>();

/**
 * Reads the rules of a message, without the rules of nested messages.
 *
 * @throws HawserError `invalid_schema` for a rule that is not supported, or does not fit its field
 */
export function rulesOf(message: DescMessage): MessageRules {
  const known = read.get(message);
  if (known !== undefined) return known;
  const rules = readMessage(message);
  read.set(message, rules);
  return rules;
}

/**
 * Reads the rules of a message and of every message that its fields reach, the message itself first.
 *
 * @throws HawserError as {@link rulesOf}
 */
export function allRulesOf(message: DescMessage): MessageRules[] {
  const found = new Map<DescMessage, MessageRules>();
  const visit = (each: DescMessage): void => {
    if (found.has(each)) return;
    found.set(each, rulesOf(each));
    for (const field of each.fields) if (field.message !== undefined) visit(field.message);
  };
  visit(message);
  return [...found.values()];
}

function readMessage(message: DescMessage): MessageRules {
  const option = getOption(message, validateOptions().message);
  refuseUnknown(message, "message", option);
  if (option.cel.length > 0) throw notSupported(message, "message.cel");
  const groups = option.oneof.map(({ fields, required }) => {
    if (fields.length === 0) throw invalidSchema(message, "rule message.oneof: it names no field; name two or more");
    return {
      fields: [...new Set(fields)].map((name) => fieldNamed(message, name)),
      required: required ?? false,
    };
  });
  const inGroup = new Set(groups.flatMap(({ fields }) => fields));
  return {
    message,
    fields: message.fields.map((field) => readField(field, inGroup.has(field))),
    requiredOneofs: message.oneofs.filter((oneof) => {
      const rules = getOption(oneof, validateOptions().oneof);
      refuseUnknown(oneof, "oneof", rules);
      return rules.required ?? false;
    }),
    exclusiveFields: groups,
  };
}

function fieldNamed(message: DescMessage, name: string): DescField {
  const field = message.fields.find((each) => each.name === name);
  if (field === undefined) throw invalidSchema(message, `rule message.oneof: there is no field "${name}"`);
  return field;
}

function readField(field: DescField, isExclusive: boolean): FieldRules {
  const option = getOption(field, validateOptions().field);
  refuseUnknown(field, "", option);
  const head = {
    field,
    required: (option.required ?? false) && option.ignore !== ignoreAlways,
    ignore: isExclusive && option.ignore === undefined ? "ifZero" : ignoreName(option),
  } as const;
  const { type } = option;
  switch (field.fieldKind) {
    case "list": {
      if (type.case !== undefined && type.case !== "repeated") throw doesNotFit(field, type.case, "repeated");
      const rules = type.value;
      if (rules !== undefined) refuseUnknown(field, "repeated", rules);
      const unique = rules?.unique ?? false;
      const items = readValue(field, "repeated.items", valueType(field), rules?.items);
      const { kind } = items.type;
      const isFloat = items.type.kind === "scalar" && [ScalarType.FLOAT, ScalarType.DOUBLE].includes(items.type.scalar);
      if (unique && (kind === "message" || isFloat)) {
        throw invalidSchema(field, `rule repeated.unique: not supported for ${isFloat ? "floats" : "messages"}`);
      }
      const minItems = count(field, "repeated.min_items", rules?.minItems);
      return {
        ...head,
        shape: "list",
        minItems,
        maxItems: count(field, "repeated.max_items", rules?.maxItems),
        unique,
        items,
      };
    }
    case "map": {
      if (type.case !== undefined && type.case !== "map") throw doesNotFit(field, type.case, "map");
      const rules = type.value;
      if (rules !== undefined) refuseUnknown(field, "map", rules);
      return {
        ...head,
        shape: "map",
        minPairs: count(field, "map.min_pairs", rules?.minPairs),
        maxPairs: count(field, "map.max_pairs", rules?.maxPairs),
        keys: readValue(field, "map.keys", { kind: "scalar", scalar: field.mapKey }, rules?.keys),
        values: readValue(field, "map.values", valueType(field), rules?.values),
      };
    }
    default: {
      const { rules, type: of } = readValue(field, undefined, valueType(field), option);
      return { ...head, shape: "single", value: { type: of, rules, ignore: head.ignore } };
    }
  }
}

function valueType(field: DescField): ValueType {
  if (field.enum !== undefined) return { kind: "enum", enum: field.enum };
  if (field.message === undefined) return { kind: "scalar", scalar: field.scalar! };
  const wrapped = isWrapperDesc(field.message) ? field.message.fields[0]!.scalar : undefined;
  return { kind: "message", message: field.message, wrapped };
}

/** @param within rule that contains these rules, such as `repeated.items`; undefined for the field's own */
function readValue(
  field: DescField,
  within: string | undefined,
  type: ValueType,
  option: FieldOption | undefined,
): ValueRules {
  if (option === undefined) return { type, ignore: "unspecified", rules: [] };
  if (within !== undefined) {
    refuseUnknown(field, within, option);
    if (option.required) throw invalidSchema(field, `rule ${within}.required: not supported; only fields are required`);
  }
  const { case: name, value: rules } = option.type;
  const ignore = ignoreName(option);
  if (name === undefined) return { type, ignore, rules: [] };
  const fitting = ruleNameOf(type);
  if (name !== fitting) throw doesNotFit(field, within === undefined ? name : `${within}.${name}`, fitting);
  refuseUnknown(field, name, rules);
  return { type, ignore, rules: readRules(field, name, type, rules) };
}

/** Name of the rules for values of a type; undefined if there are none. */
function ruleNameOf(type: ValueType): string | undefined {
  if (type.kind === "enum") return "enum";
  const scalar = type.kind === "scalar" ? type.scalar : type.wrapped;
  if (scalar !== undefined) return ScalarType[scalar].toLowerCase();
  const { typeName } = (type as { message: DescMessage }).message;
  if (typeName === "google.protobuf.Duration") return "duration";
  return typeName === "google.protobuf.Timestamp" ? "timestamp" : undefined;
}

/** Reads the rules that are set in a message of rules, such as StringRules. */
function readRules(field: DescField, name: string, type: ValueType, option: Message): Rule[] {
  const found: Rule[] = [];
  const message = reflect(validateOptions().schemas.get(name)!, option);
  const limits: { lower?: Limit; upper?: Limit; lowerName?: string; upperName?: string } = {};
  for (const rule of message.sortedFields) {
    if (!message.isSet(rule)) continue;
    const id = `${name}.${rule.name}`;
    const given = plain(message.get(rule));
    refuseNotComparable(field, id, given);
    switch (rule.name) {
      case "lt":
      case "lte":
        limits.upper = { value: numberOf(given), inclusive: rule.name === "lte" };
        limits.upperName = rule.name;
        break;
      case "gt":
      case "gte":
        limits.lower = { value: numberOf(given), inclusive: rule.name === "gte" };
        limits.lowerName = rule.name;
        break;
      default:
        found.push(...readRule(field, id, rule.name, type, given));
    }
  }
  const { lower, upper, lowerName, upperName } = limits;
  if (lower !== undefined || upper !== undefined) {
    const outside = lower !== undefined && upper !== undefined && upper.value < lower.value;
    const id = `${name}.${[lowerName, upperName].filter((each) => each !== undefined).join("_")}`;
    found.push({ id: outside ? `${id}_exclusive` : id, kind: "range", lower, upper, outside });
  }
  return found;
}

/** Converts a reflected list to an array and a reflected message to the message; scalars are unchanged. */
function plain(given: unknown): unknown {
  if (isReflectList(given)) return [...given];
  return isReflectMessage(given) ? given.message : given;
}

function readRule(field: DescField, id: string, name: string, type: ValueType, given: unknown): Rule[] {
  const lengthOf = (limit: "exactly" | "atLeast" | "atMost", unit?: "bytes"): Rule[] => {
    const scalar = type.kind === "scalar" ? type.scalar : (type as { wrapped?: ScalarType }).wrapped;
    const value = count(field, id, given as bigint)!;
    return [{ id, kind: "length", unit: scalar === ScalarType.BYTES ? "bytes" : (unit ?? "characters"), limit, value }];
  };
  switch (name) {
    case "const":
      return [{ id, kind: "const", value: given as RuleValue }];
    case "in":
      return [{ id, kind: "in", values: given as RuleValue[] }];
    case "not_in":
      return [{ id, kind: "notIn", values: given as RuleValue[] }];
    case "finite":
      return given ? [{ id, kind: "finite" }] : [];
    case "len":
      return lengthOf("exactly");
    case "min_len":
      return lengthOf("atLeast");
    case "max_len":
      return lengthOf("atMost");
    case "len_bytes":
      return lengthOf("exactly", "bytes");
    case "min_bytes":
      return lengthOf("atLeast", "bytes");
    case "max_bytes":
      return lengthOf("atMost", "bytes");
    case "pattern":
      return [{ id, kind: "pattern", pattern: checkedPattern(field, given as string) }];
    case "prefix":
    case "suffix":
    case "contains":
      return [{ id, kind: name, value: given as string | Uint8Array }];
    case "not_contains":
      return [{ id, kind: "notContains", value: given as string }];
    case "defined_only": {
      const { enum: of } = type as { enum: DescEnum };
      return given ? [{ id, kind: "definedOnly", numbers: [...new Set(of.values.map(({ number }) => number))] }] : [];
    }
    default:
      // The remaining rules are formats: true requires the format, false has no effect.
      return given ? [{ id, kind: "format", format: name as FormatName, ...formatPatterns[name as FormatName] }] : [];
  }
}

function checkedPattern(field: DescField, pattern: string): string {
  const problem = /\\u/u.test(pattern)
    ? "has \\u, which RE2 does not read; write the character itself"
    : patternProblem(pattern);
  if (problem !== undefined) throw invalidSchema(field, `rule string.pattern: "${pattern}" ${problem}`);
  return pattern;
}

/**
 * Refuses values that cannot be compared: NaN equals itself in Postgres but not in JavaScript, and NUL cannot be in a
 * text of Postgres.
 */
function refuseNotComparable(field: DescField, id: string, given: unknown): void {
  for (const value of Array.isArray(given) ? given : [given]) {
    if (Number.isNaN(value)) throw invalidSchema(field, `rule ${id}: NaN cannot be compared; remove it`);
    if (typeof value === "string" && value.includes("\0")) {
      throw invalidSchema(field, `rule ${id}: has NUL, which Postgres cannot store in a text; remove it`);
    }
  }
}

/** Limit as a number; for a Duration or Timestamp as nanoseconds. */
function numberOf(given: unknown): number | bigint {
  if (typeof given !== "object") return given as number | bigint;
  return nanosecondsOf(given as Duration | Timestamp);
}

/** Nanoseconds of a Duration, or of a Timestamp since 1970. */
export function nanosecondsOf({ seconds, nanos }: Pick<Duration, "seconds" | "nanos">): bigint {
  return BigInt(seconds) * 1_000_000_000n + BigInt(nanos);
}

function count(field: DescField, id: string, value: bigint | undefined): number | undefined {
  // Postgres values are smaller than 1 GiB, and JavaScript arrays have no more elements than this.
  if (value !== undefined && value > 2n ** 30n) {
    throw invalidSchema(field, `rule ${id}: ${value} is more than a value can have; use at most ${2n ** 30n}`);
  }
  return value === undefined ? undefined : Number(value);
}

function ignoreName({ ignore }: FieldOption): IgnoreName {
  if (ignore === ignoreAlways) return "always";
  return ignore === ignoreIfZero ? "ifZero" : "unspecified";
}

/**
 * Refuses rules that the generated descriptor does not have. The error names a rule whose name is reserved, and gives
 * the number of any other.
 */
function refuseUnknown(at: DescField | DescMessage | DescOneof, within: string, option: Message): void {
  const { schemas } = validateOptions();
  const schema = schemas.get(within) ?? schemas.get("")!;
  const { reservedRange, reservedName } = schema.proto;
  for (const { no } of option.$unknown ?? []) {
    const name = reservedName[reservedRange.findIndex(({ start }) => start === no)];
    // The rule `example` only documents values.
    if (name === "example") continue;
    const rule = `${within === "" ? "" : `${within}.`}${name ?? `number ${no}`}`;
    throw notSupported(at, rule);
  }
}

function notSupported(at: DescField | DescMessage | DescOneof, rule: string): HawserError {
  return invalidSchema(at, `rule ${rule}: not supported; docs/typed.md lists the rules that are`);
}

function doesNotFit(field: DescField, name: string, fitting: string | undefined): HawserError {
  const takes = fitting === undefined ? "takes only required and ignore" : `takes those of ${fitting}`;
  return invalidSchema(field, `rules of ${name} do not fit the field, which ${takes}`);
}

export function invalidSchema(at: DescField | DescMessage | DescOneof, why: string): HawserError {
  const name = at.kind === "message" ? at.typeName : `${at.parent.typeName}.${at.name}`;
  return new HawserError("invalid_schema", `${name}: ${why}`);
}
