import type { DescField, DescFile } from "@bufbuild/protobuf";
import { patternProblem } from "../../src/protobuf/typed/pattern.js";
import type { RulesOption, SpecOptions } from "./options.js";
import { SpecError } from "./spec-error.js";
import { type IntegerRange, specTypeOf, type ValueKind } from "./value-kind.js";

/** Limits of a value, checked against its type. All apply together; an absent limit does not apply. */
export interface Rules {
  readonly min?: bigint;
  readonly max?: bigint;
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly pattern?: Pattern;
  /** Least number of elements; only in messages that are sent. */
  readonly minItems?: number;
  readonly maxItems?: number;
  /** Greatest size of all elements of a list together. */
  readonly maxTotalBytes?: number;
  /** Greatest size of one element of a list. */
  readonly maxItemBytes?: number;
  /** Greatest size of a header's name. */
  readonly maxNameBytes?: number;
  /** Greatest size of a header's value. */
  readonly maxValueBytes?: number;
  readonly in?: readonly string[];
  readonly required?: true;
  /** Name of the rules in the spec, if all of them come from one set of named rules. */
  readonly named?: string;
}

/** Regular expression that must match the whole string, and its meaning, as in "must not contain ':'". */
interface Pattern {
  readonly source: string;
  readonly means: string;
}

/** Properties of a value that its rules are checked against. */
export interface RuleTarget {
  readonly kind: ValueKind | undefined;
  readonly repeated: boolean;
  readonly range?: IntegerRange | undefined;
  /** True for a parameter of a function. Only parameters may have rules about the parts of a value. */
  readonly isParameter?: boolean;
}

const noRules: Rules = {};

/** Rules that a single value of each kind accepts. */
const rulesOfKind: Partial<Record<ValueKind, readonly (keyof RulesOption)[]>> = {
  number: ["min", "max"],
  bigint: ["min", "max"],
  enum: ["min", "max"],
  string: ["minBytes", "maxBytes", "pattern", "patternMeans", "in"],
  bytes: ["minBytes", "maxBytes"],
  json: ["maxBytes", "maxItems", "maxNameBytes", "maxValueBytes"],
  message: ["required"],
  timestamp: ["required"],
};

/** Rules that a list of values accepts. */
const rulesOfLists: readonly (keyof RulesOption)[] = ["maxItems", "maxTotalBytes", "maxItemBytes"];

const ruleNames = [...new Set([...Object.values(rulesOfKind).flat(), ...rulesOfLists])];

/** `maxBytes` → `max_bytes`. */
function specName(rule: string): string {
  return rule.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/**
 * Reads and checks the rules of a field.
 *
 * @throws SpecError if a rule does not apply to the type, lies outside its range, or contradicts another.
 */
export function readRules(field: DescField, options: SpecOptions, target: RuleTarget): Rules {
  const own = options.rules(field);
  if (own === undefined) {
    return noRules;
  }
  const option = withNamed(field, own, options);
  refuseForeignRules(field, option, target);
  refuseContradictions(field, option, target.range);
  return rulesOf(option);
}

/** Rules with a name: for a text, bytes, headers, or a list. */
export interface NamedRules {
  readonly file: DescFile;
  readonly name: string;
  readonly about: string;
  readonly rules: Rules;
  /** Name in the table of limits; empty if the table omits it. */
  readonly limit: string;
}

/** @throws SpecError if the rules belong to different kinds of value, or contradict each other */
export function readNamedRules(options: SpecOptions): NamedRules[] {
  return [...options.namedRules.values()].map(({ file, name, about, rules, limit }) => {
    refuseForeignRules(file, rules!, targetOfNamed(rules!));
    refuseContradictions(file, rules!, undefined);
    return { file, name, about, rules: rulesOf(rules!), limit };
  });
}

/** Kind of value that named rules apply to: some rules exist for a single kind. */
function targetOfNamed(rules: RulesOption): RuleTarget {
  const isList = rules.maxTotalBytes !== undefined || rules.maxItemBytes !== undefined;
  const isHeaders = rules.maxNameBytes !== undefined || rules.maxValueBytes !== undefined;
  const isCount = rules.maxItems !== undefined && rules.maxBytes === undefined;
  return { kind: isHeaders ? "json" : "string", repeated: isList || isCount, isParameter: true };
}

function rulesOf(option: RulesOption): Rules {
  return defined({
    min: option.min,
    max: option.max,
    minBytes: count(option.minBytes),
    maxBytes: count(option.maxBytes),
    pattern: option.pattern === "" ? undefined : { source: option.pattern, means: option.patternMeans },
    maxItems: option.maxItems,
    maxTotalBytes: count(option.maxTotalBytes),
    maxItemBytes: count(option.maxItemBytes),
    maxNameBytes: option.maxNameBytes,
    maxValueBytes: option.maxValueBytes,
    in: option.in.length === 0 ? undefined : option.in,
    required: option.required || undefined,
    named: option.named || undefined,
  });
}

/** Number of bytes or elements, which the spec may have in 64 bits. */
export function count(value: bigint | number | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

/** Rules without those that are undefined. */
export function defined(rules: { readonly [Name in keyof Rules]: Rules[Name] | undefined }): Rules {
  return Object.fromEntries(Object.entries(rules).filter(([, value]) => value !== undefined));
}

/** Merges a field's own rules with the named rules that it refers to. */
function withNamed(field: DescField, option: RulesOption, options: SpecOptions): RulesOption {
  if (option.named === "") {
    return option;
  }
  const named = options.namedRules.get(option.named)?.rules;
  if (named === undefined) {
    const names = [...options.namedRules.keys()].join(", ");
    throw new SpecError(field, `there are no rules named "${option.named}"; there are ${names || "none"}`);
  }
  const beside = ruleNames.filter((name) => isSet(option[name]));
  const twice = beside.find((name) => isSet(named[name]));
  if (twice !== undefined) {
    throw new SpecError(field, `rule ${specName(twice)} is one of "${option.named}" already`);
  }
  const added = Object.fromEntries(beside.map((name) => [name, option[name]]));
  return { ...named, ...added, named: beside.length === 0 ? option.named : "" };
}

function refuseForeignRules(field: DescField | DescFile, option: RulesOption, target: RuleTarget): void {
  const { kind, repeated, isParameter } = target;
  const ofKind = (kind !== undefined && (kind !== "json" || isParameter) && rulesOfKind[kind]) || [];
  const ofLists = isParameter ? rulesOfLists : rulesOfLists.slice(0, 1);
  const allowed: readonly (keyof RulesOption)[] = repeated ? ofLists : ofKind;
  for (const name of ruleNames) {
    if (isSet(option[name]) && !allowed.includes(name)) {
      const takes = allowed.length === 0 ? "which takes no rules" : `which takes ${allowed.map(specName).join(", ")}`;
      throw new SpecError(
        field,
        `rule ${specName(name)} does not apply to ${field.kind === "file" ? "named rules" : specTypeOf(field)}, ${takes}`,
      );
    }
  }
}

function refuseContradictions(field: DescField | DescFile, option: RulesOption, range: IntegerRange | undefined): void {
  const { min, max, pattern } = option;
  if (range !== undefined) {
    for (const [name, limit] of [
      ["min", min],
      ["max", max],
    ] as const) {
      if (limit !== undefined && (limit < range.min || limit > range.max)) {
        throw new SpecError(field, `rule ${name}: ${limit} lies outside the type, ${range.min} to ${range.max}`);
      }
    }
  }
  if (pattern !== "") {
    const problem = patternProblem(pattern);
    if (problem !== undefined) {
      throw new SpecError(field, `rule pattern: "${pattern}" ${problem}`);
    }
  }
}

function isSet(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== "" && value !== false;
}
