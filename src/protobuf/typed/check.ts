/**
 * Rules of a schema as functions, compiled at the first use of the schema. They may rely on the types of the values,
 * because a message is encoded or decoded before it is checked.
 */
import { create, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { plural, quoted } from "../../foundation/errors/index.js";
import {
  allRulesOf,
  type FieldRules,
  type Limit,
  nanosecondsOf,
  type Rule,
  type RuleValue,
  rulesOf,
  type ValueRules,
} from "./rules.js";
import { isLong, keyOf } from "./scalars.js";

/** Value that breaks a rule. */
export interface BrokenRule {
  /** Path of the field: `lines[2].sku`; empty for a rule of the message itself. */
  readonly path: string;
  /** Value, readable for people; for bytes only their number. */
  readonly value: string;
  /** Requirement: "must have at least 2 characters". */
  readonly must: string;
  /** Name of the rule: `string.min_len`. */
  readonly rule: string;
}

/** Message, or its initializer, with the property names of protobuf-es. */
type Fields = Readonly<Record<string, unknown>>;

/** Returns the first rule that a message breaks. */
export type CheckMessage = (message: Fields) => BrokenRule | undefined;
type CheckField = (message: Fields) => BrokenRule | undefined;
interface CheckValue {
  /** @param place returns the path of the value; called only if it breaks a rule */
  (value: unknown, place: () => string): BrokenRule | undefined;
  /** Faster test that the value breaks no rule, if there is one. */
  readonly holds?: Holds;
}
type Holds = (value: unknown) => boolean;
type Comparable = number | bigint;

const checks = new WeakMap<DescMessage, CheckMessage | typeof nothingToCheck>();
const nothingToCheck = Symbol("nothing to check");

/**
 * Returns the first rule that the message breaks; undefined if it breaks none. Absent fields are zero or not set.
 *
 * @throws HawserError `invalid_schema` as {@link rulesOf}
 */
export function brokenRule(schema: DescMessage, message: Readonly<Record<string, unknown>>): BrokenRule | undefined {
  return checkOf(schema)?.(message);
}

/** Check of the messages of a schema; undefined if the schema has no rules. @throws HawserError `invalid_schema` */
export function checkOf(schema: DescMessage): CheckMessage | undefined {
  let check = checks.get(schema);
  if (check === undefined) {
    // Compiles the nested messages too, so that an unsupported rule is found before the first message that has the
    // field.
    for (const { message: each } of allRulesOf(schema)) if (!checks.has(each)) compile(each);
    check = checks.get(schema)!;
  }
  return check === nothingToCheck ? undefined : check;
}

function compile(schema: DescMessage): void {
  // Rules of the message itself, or of a nested message.
  if (!allRulesOf(schema).some(hasRules)) {
    checks.set(schema, nothingToCheck);
    return;
  }
  const { fields, requiredOneofs, exclusiveFields } = rulesOf(schema);
  const all: CheckField[] = fields.flatMap((rules) => compileField(rules) ?? []);
  for (const oneof of requiredOneofs) {
    const name = oneof.localName;
    const broken = { path: oneof.name, value: "nothing", must: "must have one of its fields set", rule: "required" };
    all.push((message) => ((message[name] as { case?: unknown } | undefined)?.case === undefined ? broken : undefined));
  }
  for (const { fields: group, required } of exclusiveFields) {
    const areSet = group.map(isSetOf);
    const names = group.map(({ name }) => name).join(", ");
    const must = `must have ${required ? "exactly" : "at most"} one of ${names} set`;
    all.push((message) => {
      const count = areSet.filter((isSet) => isSet(message)).length;
      if (count <= 1 && !(required && count === 0)) return undefined;
      return { path: "", value: `${count} of them`, must, rule: "message.oneof" };
    });
  }
  checks.set(schema, (message) => {
    for (let index = 0; index < all.length; index++) {
      const broken = all[index]!(message);
      if (broken !== undefined) return broken;
    }
    return undefined;
  });
}

function hasRules({ fields, requiredOneofs, exclusiveFields }: ReturnType<typeof rulesOf>): boolean {
  if (requiredOneofs.length + exclusiveFields.length > 0) return true;
  return fields.some(fieldHasRules);
}

function fieldHasRules(field: FieldRules): boolean {
  if (field.required) return true;
  switch (field.shape) {
    case "single":
      return field.value.rules.length > 0;
    case "list": {
      const { minItems, maxItems, unique, items } = field;
      return unique || (minItems ?? maxItems) !== undefined || items.rules.length > 0;
    }
    case "map": {
      const { minPairs, maxPairs, keys, values } = field;
      return (minPairs ?? maxPairs) !== undefined || keys.rules.length + values.rules.length > 0;
    }
  }
}

/** Returns a function that reads the value of a field from a message; undefined if it is not set. */
function getterOf(field: DescField): (message: Fields) => unknown {
  const name = field.localName;
  if (field.oneof !== undefined) {
    const group = field.oneof.localName;
    return (message) => {
      const chosen = message[group] as { case?: unknown; value?: unknown } | undefined | null;
      return chosen?.case === name ? chosen.value : undefined;
    };
  }
  // A message of protobuf-es may have defaults on its prototype, so that own properties show which fields are set.
  if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) {
    return (message) => (Object.hasOwn(message, name) ? (message[name] ?? undefined) : undefined);
  }
  return (message) => message[name] ?? undefined;
}

/** Returns a test whether a field is set; for a field without presence, whether it is not zero. */
function isSetOf(field: DescField): (message: Fields) => boolean {
  const get = getterOf(field);
  if (field.fieldKind === "list") return (message) => ((get(message) as unknown[] | undefined)?.length ?? 0) > 0;
  if (field.fieldKind === "map") return (message) => Object.keys(get(message) ?? {}).length > 0;
  if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) return (message) => get(message) !== undefined;
  const isZero = isZeroOf(
    field.enum !== undefined ? field.enum.values[0]!.number : field.scalar!,
    field.enum === undefined,
  );
  return (message) => {
    const value = get(message);
    return value !== undefined && !isZero(value);
  };
}

/** @param of a scalar type, or the first number of an enum */
function isZeroOf(of: ScalarType | number, isScalar: boolean): (value: unknown) => boolean {
  if (!isScalar) return (value) => value === of;
  switch (of) {
    case ScalarType.STRING:
      return (value) => value === "";
    case ScalarType.BYTES:
      return (value) => (value as Uint8Array).length === 0;
    case ScalarType.BOOL:
      return (value) => value === false;
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return (value) => Object.is(value, 0);
    default:
      return (value) => value === 0 || value === 0n || value === "0";
  }
}

function compileField(rules: FieldRules): CheckField | undefined {
  const { field, required, ignore } = rules;
  const get = getterOf(field);
  const isSet = isSetOf(field);
  const missing = { path: field.name, value: "nothing", must: "must be set", rule: "required" };
  const check = ignore === "always" ? undefined : compileShape(rules);
  if (check === undefined) {
    return required ? (message) => (isSet(message) ? undefined : missing) : undefined;
  }
  // A field without presence always has a value.
  const isAlwaysThere = field.presence === FeatureSet_FieldPresence.IMPLICIT && ignore !== "ifZero";
  const zero = isAlwaysThere ? zeroOf(field) : undefined;
  const place = () => field.name;
  if (isAlwaysThere && !required) {
    const { holds } = check;
    if (holds === undefined) return (message) => check(get(message) ?? zero, place);
    // The common case, with as few calls as possible.
    const name = field.localName;
    return (message) => {
      const value = message[name] ?? zero;
      return holds(value) ? undefined : check(value, place);
    };
  }
  return (message) => {
    if (!isSet(message)) return required ? missing : undefined;
    return check(get(message), place);
  };
}

function zeroOf(field: DescField): unknown {
  const zero = create(field.parent) as unknown as Record<string, unknown>;
  return zero[field.localName];
}

/** Check of a field's value, list or map; undefined if it has no rules. */
function compileShape(rules: FieldRules): CheckValue | undefined {
  const { field } = rules;
  switch (rules.shape) {
    case "single":
      return compileValue(rules.value, field.oneof === undefined);
    case "list": {
      const { minItems = 0, maxItems = Number.POSITIVE_INFINITY, unique } = rules;
      const limits = countCheck("repeated", "element", minItems, maxItems, "items");
      const checkItem = compileElement(rules.items);
      if (!unique && checkItem === undefined && limits === undefined) return undefined;
      return (value, place) => {
        const list = value as readonly unknown[];
        const broken = limits?.(list.length, place);
        if (broken !== undefined) return broken;
        if (unique) {
          const twice = repetition(list);
          if (twice !== undefined) {
            return { path: place(), value: shown(twice), must: "must not occur twice", rule: "repeated.unique" };
          }
        }
        if (checkItem !== undefined) {
          for (let index = 0; index < list.length; index++) {
            const found = checkItem(list[index], () => `${place()}[${index}]`);
            if (found !== undefined) return found;
          }
        }
        return undefined;
      };
    }
    case "map": {
      const { minPairs = 0, maxPairs = Number.POSITIVE_INFINITY } = rules;
      const limits = countCheck("map", "pair", minPairs, maxPairs, "pairs");
      const checkKey = compileElement(rules.keys);
      const checkElement = compileElement(rules.values);
      if (checkKey === undefined && checkElement === undefined && limits === undefined) return undefined;
      const keyType = (rules.keys.type as { scalar: ScalarType }).scalar;
      return (value, place) => {
        const entries = Object.entries(value as Fields);
        const broken = limits?.(entries.length, place);
        if (broken !== undefined) return broken;
        for (const [key, element] of entries) {
          const placeOfElement = () => `${place()}[${JSON.stringify(key)}]`;
          const found = checkKey?.(keyOf(keyType, key), placeOfElement) ?? checkElement?.(element, placeOfElement);
          if (found !== undefined) return found;
        }
        return undefined;
      };
    }
  }
}

function countCheck(
  kind: "repeated" | "map",
  one: string,
  min: number,
  max: number,
  name: string,
): ((count: number, place: () => string) => BrokenRule | undefined) | undefined {
  if (min === 0 && max === Number.POSITIVE_INFINITY) return undefined;
  const many = (count: number) => plural(count, one);
  return (count, place) => {
    if (count >= min && count <= max) return undefined;
    const must = count < min ? `must have at least ${many(min)}` : `must have at most ${many(max)}`;
    return { path: place(), value: many(count), must, rule: `${kind}.${count < min ? "min" : "max"}_${name}` };
  };
}

/** First value that occurs twice. Bytes are compared by content. */
function repetition(list: readonly unknown[]): unknown {
  if (list.length < 2) return undefined;
  const seen = new Set<unknown>();
  for (const value of list) {
    const key = value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : value;
    if (seen.has(key)) return value;
    seen.add(key);
  }
  return undefined;
}

/** Check of an element of a list, or of a key or value of a map. */
function compileElement(rules: ValueRules): CheckValue | undefined {
  if (rules.ignore === "always") return undefined;
  const check = compileValue(rules, false);
  if (check === undefined || rules.ignore === "unspecified" || rules.type.kind === "message") return check;
  const isZero =
    rules.type.kind === "enum" ? isZeroOf(rules.type.enum.values[0]!.number, false) : isZeroOf(rules.type.scalar, true);
  return (value, place) => (isZero(value) ? undefined : check(value, place));
}

/** @param unwrapped true if the value replaces its wrapper, such as StringValue */
function compileValue({ type, rules }: ValueRules, unwrapped: boolean): CheckValue | undefined {
  if (type.kind !== "message") return compileRules(rules, type.kind === "scalar" ? type.scalar : ScalarType.INT32);
  const { message, wrapped } = type;
  if (wrapped !== undefined) {
    const check = compileRules(rules, wrapped);
    if (check === undefined || unwrapped) return check;
    const zero = zeroOf(message.fields[0]!);
    return (value, place) => check((value as { value?: unknown }).value ?? zero, place);
  }
  const own = compileRules(rules, undefined);
  if (!allRulesOf(message).some(hasRules)) return own;
  let checkFields: CheckMessage | undefined;
  return (value, place) => {
    const broken = own?.(value, place);
    if (broken !== undefined) return broken;
    checkFields ??= checkOf(message)!;
    const found = checkFields(value as Fields);
    return found && { ...found, path: found.path === "" ? place() : `${place()}.${found.path}` };
  };
}

/** @param scalar undefined for a Duration or Timestamp */
function compileRules(rules: readonly Rule[], scalar: ScalarType | undefined): CheckValue | undefined {
  if (rules.length === 0) return undefined;
  const convert = conversionFor(scalar);
  const each = rules.map((rule) => compileRule(rule, scalar));
  const check = (value: unknown, place: () => string): BrokenRule | undefined => {
    const compared = convert === undefined ? value : convert(value);
    const broken = rules[each.findIndex((holds) => !holds(compared))];
    if (broken === undefined) return undefined;
    const text = shown(scalar === undefined ? value : compared);
    return { path: place(), value: text, must: requirementOf(broken), rule: broken.id };
  };
  return Object.assign(check, { holds: converted(convert, all(each)) });
}

function all(each: readonly Holds[]): Holds {
  const [first, second] = each;
  // Most fields have one rule, or two.
  if (each.length === 1) return first!;
  if (each.length === 2) return (value) => first!(value) && second!(value);
  return (value) => {
    for (let index = 0; index < each.length; index++) if (!each[index]!(value)) return false;
    return true;
  };
}

function converted(convert: ((value: unknown) => unknown) | undefined, holds: Holds): Holds {
  return convert === undefined ? holds : (value) => holds(convert(value));
}

/** Conversion that makes a value comparable with the values of rules. */
function conversionFor(scalar: ScalarType | undefined): ((value: unknown) => unknown) | undefined {
  if (scalar === undefined) {
    return (value) => {
      const { seconds = 0n, nanos = 0 } = value as { seconds?: bigint; nanos?: number };
      return nanosecondsOf({ seconds, nanos });
    };
  }
  // A float is sent with 32 bits.
  if (scalar === ScalarType.FLOAT) return (value) => Math.fround(value as number);
  // A long value may be a string or a number too.
  if (isLong(scalar)) return (value) => (typeof value === "bigint" ? value : BigInt(value as string | number));
  return undefined;
}

/** Compiles a rule to a test of a value. */
function compileRule(rule: Rule, scalar: ScalarType | undefined): (value: unknown) => boolean {
  const isBytes = scalar === ScalarType.BYTES;
  switch (rule.kind) {
    case "const":
      return isBytes ? (value) => sameBytes(value, rule.value) : (value) => value === rule.value;
    case "in":
    case "notIn": {
      const wanted = rule.kind === "in";
      if (isBytes) return (value) => rule.values.some((each) => sameBytes(value, each)) === wanted;
      if (rule.values.length <= 8) return (value) => rule.values.some((each) => each === value) === wanted;
      const values = new Set<unknown>(rule.values);
      return (value) => (values.has(value) && !Number.isNaN(value)) === wanted;
    }
    case "range": {
      const { lower, upper, outside } = rule;
      const above = lower && isAbove(lower);
      const below = upper && isBelow(upper);
      if (above === undefined || below === undefined) return above ?? below ?? (() => true);
      if (outside) return (value) => above(value) || below(value);
      return (value) => above(value) && below(value);
    }
    case "finite":
      return (value) => Number.isFinite(value);
    case "length": {
      const { unit, limit, value: bound } = rule;
      const min = limit === "atMost" ? 0 : bound;
      const max = limit === "atLeast" ? Number.POSITIVE_INFINITY : bound;
      if (isBytes) return (value) => between((value as Uint8Array).length, min, max);
      return unit === "bytes" ? textFits(min, max, 1, 3, Buffer.byteLength) : textFits(min, max, 2, 1, characters);
    }
    case "pattern": {
      const pattern = new RegExp(rule.pattern, "u");
      return (value) => pattern.test(value as string);
    }
    case "format": {
      const { maxLength = Number.POSITIVE_INFINITY } = rule;
      const pattern = new RegExp(rule.pattern, "u");
      const butNot = rule.butNot === undefined ? undefined : new RegExp(rule.butNot, "u");
      return (value) =>
        (value as string).length <= maxLength && pattern.test(value as string) && !butNot?.test(value as string);
    }
    case "prefix": {
      if (typeof rule.value === "string") return (value) => (value as string).startsWith(rule.value as string);
      const prefix = rule.value;
      return (value) => sameBytes((value as Uint8Array).subarray(0, prefix.length), prefix);
    }
    case "suffix": {
      if (typeof rule.value === "string") return (value) => (value as string).endsWith(rule.value as string);
      const suffix = rule.value;
      return (value) =>
        (value as Uint8Array).length >= suffix.length &&
        sameBytes((value as Uint8Array).subarray((value as Uint8Array).length - suffix.length), suffix);
    }
    case "contains":
    case "notContains": {
      const wanted = rule.kind === "contains";
      if (typeof rule.value === "string") return (value) => (value as string).includes(rule.value as string) === wanted;
      const part = Buffer.from(rule.value);
      return (value) => viewOf(value as Uint8Array).includes(part) === wanted;
    }
    case "definedOnly": {
      const numbers = new Set(rule.numbers);
      return (value) => numbers.has(value as number);
    }
  }
}

function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function sameBytes(one: unknown, other: unknown): boolean {
  return viewOf(one as Uint8Array).equals(other as Uint8Array);
}

function between(count: number, min: number, max: number): boolean {
  return count >= min && count <= max;
}

/**
 * Returns a test whether the length of a text lies between two limits. Most texts are not measured, because their number
 * of UTF-16 units decides: a unit is 1/2 to 1 character, or 1 to 3 bytes.
 *
 * @param perMeasured greatest number of UTF-16 units per measured unit
 * @param perUnit greatest number of measured units per UTF-16 unit
 */
function textFits(
  min: number,
  max: number,
  perMeasured: number,
  perUnit: number,
  measure: (text: string) => number,
): Holds {
  return (value) => {
    const text = value as string;
    const units = text.length;
    if (units >= min * perMeasured && units * perUnit <= max) return true;
    if (units > max * perMeasured || units * perUnit < min) return false;
    return between(measure(text), min, max);
  };
}

function isAbove({ value: limit, inclusive }: Limit): Holds {
  return inclusive ? (value) => (value as Comparable) >= limit : (value) => (value as Comparable) > limit;
}

function isBelow({ value: limit, inclusive }: Limit): Holds {
  return inclusive ? (value) => (value as Comparable) <= limit : (value) => (value as Comparable) < limit;
}

/** Number of code points. */
function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** Text of a value for an error. */
export function shown(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === "string") return quoted(value);
  if (typeof value !== "object" || value === null) return String(value);
  const { seconds, nanos } = value as { seconds?: unknown; nanos?: unknown };
  return seconds === undefined && nanos === undefined ? "a message" : `${seconds ?? 0} s and ${nanos ?? 0} ns`;
}

/** Value of a rule in words. One in nanoseconds is a duration or a time. */
function shownOf({ id }: Rule, value: RuleValue): string {
  if (value instanceof Uint8Array) return `0x${Buffer.from(value).toString("hex")}`;
  if (typeof value === "bigint" && id.startsWith("duration.")) return `${Number(value) / 1e9}s`;
  if (typeof value === "bigint" && id.startsWith("timestamp.")) return new Date(Number(value / 1_000_000n)).toJSON();
  return shown(value);
}

/** Requirement of a rule in words: "must have at least 2 characters". */
export function requirementOf(rule: Rule): string {
  const list = (values: readonly RuleValue[]): string => values.map((value) => shownOf(rule, value)).join(", ");
  switch (rule.kind) {
    case "const":
      return `must be ${shownOf(rule, rule.value)}`;
    case "in":
      return `must be one of ${list(rule.values)}`;
    case "notIn":
      return `must be none of ${list(rule.values)}`;
    case "range": {
      const { lower, upper, outside } = rule;
      const ends = [
        lower && `${lower.inclusive ? "at least" : "more than"} ${shownOf(rule, lower.value)}`,
        upper && `${upper.inclusive ? "at most" : "less than"} ${shownOf(rule, upper.value)}`,
      ];
      return `must be ${ends.filter((each) => each !== undefined).join(outside ? " or " : " and ")}`;
    }
    case "finite":
      return "must be finite";
    case "length": {
      const limit = { exactly: "exactly", atLeast: "at least", atMost: "at most" }[rule.limit];
      return `must have ${limit} ${rule.value} ${rule.value === 1 ? rule.unit.slice(0, -1) : rule.unit}`;
    }
    case "pattern":
      return `must match ${rule.pattern}`;
    case "format":
      return `must be a valid ${rule.format}`;
    case "prefix":
      return `must begin with ${shownOf(rule, rule.value)}`;
    case "suffix":
      return `must end with ${shownOf(rule, rule.value)}`;
    case "contains":
      return `must contain ${shownOf(rule, rule.value)}`;
    case "notContains":
      return `must not contain ${shownOf(rule, rule.value)}`;
    case "definedOnly":
      return "must be a value that the enum defines";
  }
}
