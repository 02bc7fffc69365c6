import type { Column } from "../model/columns.js";
import type { MessageField } from "../model/messages.js";
import { camelCase } from "../model/names.js";
import type { Rules } from "../model/rules.js";
import { type IntegerRange, isSafeInteger, type ValueKind } from "../model/value-kind.js";
import { docstring, patternLiteral, propertyName, stringLiteral } from "../print.js";

/** Value with rules, from which a check is printed. */
export interface CheckedValue {
  /** First part of a violation's path. */
  readonly path: string;
  readonly kind: ValueKind;
  readonly repeated: boolean;
  /** Range of the value's type; undefined if the decoder guarantees it, so that it need not be checked. */
  readonly range: IntegerRange | undefined;
  readonly rules: Rules;
  /** True to print the comparisons inline: on frames they are the hot path. */
  readonly inline: boolean;
}

/** Check of a frame's field; undefined if it has nothing to check. */
export function checkedField(message: MessageField): CheckedValue | undefined {
  const { name, kind, repeated, range, rules: all } = message;
  const { required: _, min, ...others } = all;
  const rules = min === undefined || (range !== undefined && min <= range.min) ? others : { ...others, min };
  return Object.keys(rules).length === 0 || kind === undefined
    ? undefined
    : // Values to write come from callers, who may pass a fraction where the encoder expects an integer.
      { path: name, kind, repeated, range: isSafeInteger(message.field) ? range : undefined, rules, inline: true };
}

/** Check of a column; undefined if its type implies all rules. */
export function checkedColumn({ name, kind, repeated, range, rules: all }: Column): CheckedValue | undefined {
  const { required: _, ...rules } = all;
  const checkable = repeated ? rules.maxItems !== undefined : range !== undefined || kind === "string";
  return !checkable && Object.keys(rules).length === 0
    ? undefined
    : { path: name, kind, repeated, range, rules, inline: false };
}

/** TypeScript type of the values that a check takes. */
export function checkedType({ repeated, kind }: CheckedValue): string {
  const types: Partial<Record<ValueKind, string>> = {
    string: "string",
    bytes: "Uint8Array",
    boolean: "boolean",
    bigint: "bigint",
  };
  return repeated ? "readonly unknown[]" : (types[kind] ?? "number");
}

/**
 * Expression of a value's check, of type `Violation | undefined`.
 *
 * @param text expression for the rules of a text or of bytes; by default the rules themselves
 */
export function checkExpression(
  { path, kind, repeated, range, rules, inline }: CheckedValue,
  value: string,
  text = textRules(rules),
): string {
  const name = stringLiteral(path);
  if (repeated) {
    const least = rules.minItems === undefined ? "" : `, ${rules.minItems}`;
    return `checkItems(${name}, ${rules.maxItems}, ${value}${least})`;
  }
  switch (kind) {
    case "string":
      return `checkText(${name}, ${text}, ${value})`;
    case "bytes":
      return `checkBytes(${name}, ${text}, ${value})`;
    case "boolean":
      return `checkBoolean(${name}, ${value})`;
  }
  const suffix = kind === "bigint" ? "n" : "";
  const { min = range?.min, max = range?.max } = rules;
  const limits = numberEntries({ min, max }, suffix);
  if (range !== undefined && !inline) {
    return `checkInteger(${name}, { ${limits} }, ${value})`;
  }
  const isInteger = kind === "bigint" ? `typeof ${value} === "bigint"` : `Number.isInteger(${value})`;
  const conditions = [
    ...(range === undefined ? [] : [isInteger]),
    ...(min === undefined ? [] : [`${value} >= ${min}${suffix}`]),
    ...(max === undefined ? [] : [`${value} <= ${max}${suffix}`]),
  ];
  const isUnsure = range === undefined ? "" : ", true";
  return `(${conditions.join(" && ")} ? undefined : outOfRange(${name}, { ${limits} }, ${value}${isUnsure}))`;
}

/** Rules of a text as `TextRules`: a named rule, or an object. */
export function textRules(rules: Rules): string {
  return rules.named === undefined ? `{ ${textEntries(rules)} }`.replace("{  }", "{}") : namedRule(rules.named);
}

function namedRule(name: string): string {
  return `namedRules.${camelCase(name)}`;
}

/** Entries of `TextRules`. */
export function textEntries(rules: Rules, separator = ", "): string {
  return [
    ...(rules.minBytes === undefined ? [] : [`minBytes: ${rules.minBytes}`]),
    ...(rules.maxBytes === undefined ? [] : [`maxBytes: ${rules.maxBytes}`]),
    ...(rules.pattern === undefined ? [] : [`pattern: ${patternLiteral(rules.pattern.source)}`]),
    ...(rules.pattern === undefined ? [] : [`means: ${stringLiteral(rules.pattern.means)}`]),
    ...(rules.in === undefined ? [] : [`values: [${rules.in.map(stringLiteral).join(", ")}]`]),
  ].join(separator);
}

function numberEntries({ min, max }: { min: bigint | undefined; max: bigint | undefined }, suffix: string): string {
  return [
    ...(min === undefined ? [] : [`min: ${min}${suffix}`]),
    ...(max === undefined ? [] : [`max: ${max}${suffix}`]),
  ].join(", ");
}

/** Value's name, kind and rules. */
export interface Limited {
  readonly name: string;
  readonly kind: ValueKind | undefined;
  readonly rules: Rules;
}

/** Prints `export const limits`, the numbers and choices of all rules: `limits.Hello.senderName.maxBytes`. */
export function printLimits(owners: readonly { readonly name: string; readonly values: readonly Limited[] }[]): string {
  const groups = owners.flatMap(({ name, values }) => {
    const lines = values.flatMap((value) => limitLine(value) ?? []);
    return lines.length === 0 ? [] : [`  ${propertyName(name)}: {\n${lines.join("")}  },\n`];
  });
  return `${docstring("Limits and choices of each field.")}export const limits = {\n${groups.join("")}} as const;\n`;
}

function limitLine({ name, kind, rules }: Limited): string | undefined {
  const entries = [
    numberEntries({ min: rules.min, max: rules.max }, kind === "bigint" ? "n" : ""),
    ...(["minBytes", "maxBytes", "minItems", "maxItems"] as const).map((key) =>
      rules[key] === undefined ? "" : `${key}: ${rules[key]}`,
    ),
    textEntries(rules.in === undefined ? {} : { in: rules.in }),
  ].filter((text) => text !== "");
  return entries.length === 0 ? undefined : `    ${propertyName(camelCase(name))}: { ${entries.join(", ")} },\n`;
}

/** Names that violation.ts exports and that printed code uses. */
const runtimeNames = [
  "type CheckedSettings",
  "checkBoolean",
  "checkBytes",
  "checkEach",
  "checkInteger",
  "checkItems",
  "checkSettings",
  "checkText",
  "missing",
  "outOfRange",
  "type SettingRules",
  "type TextRules",
  "type Violation",
  "within",
];

/**
 * Imports of the names from `generated/ts/rules` that the printed code uses; empty if it uses none.
 *
 * @param folder path of that folder, relative to the printed file: `../rules`
 */
export function ruleImports(body: readonly string[], folder: string): string {
  const text = body.join("\n");
  const named = text.includes("namedRules.") ? `import { namedRules } from "${folder}/named.js";\n` : "";
  return named + importLine(text, `${folder}/violation.js`, runtimeNames);
}

/** Import of those `names` that the printed code uses; empty if it uses none. Types are written as `type Name`. */
export function importLine(text: string, from: string, names: readonly string[]): string {
  const used = names.filter((name) =>
    new RegExp(name.startsWith("type ") ? `[:,=] ${name.slice(5)}\\b` : `\\b${name}(<\\w+>)?\\(`).test(text),
  );
  return used.length === 0 ? "" : `import { ${used.join(", ")} } from ${stringLiteral(from)};\n`;
}
