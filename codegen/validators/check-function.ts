import { bytesText, itemsText, limitPhrases, type RuleText, rangeText } from "../model/rule-text.js";
import type { Rules } from "../model/rules.js";
import { docstring, patternLiteral, stringLiteral } from "../print.js";
import type { CheckedValue } from "./checked-value.js";

/** Prints `export function check…(value): Violation | undefined`. */
export function printCheck(value: CheckedValue): string {
  if (value.repeated) {
    return listCheck(value);
  }
  switch (value.kind) {
    case "string":
    case "bytes":
      return textCheck(value);
    case "boolean":
      return typeofCheck(value);
    default:
      return numberCheck(value);
  }
}

function listCheck(value: CheckedValue): string {
  const maxItems = value.rules.maxItems!;
  const shown = "`$" + "{value.length} elements`";
  return checkFunction(value, "readonly unknown[]", `value.length <= ${maxItems}`, shown, itemsText(maxItems));
}

/** The comparisons stand in the function itself: on frames they are the hot path. */
function numberCheck(value: CheckedValue): string {
  const rules = effectiveRange(value);
  const suffix = value.kind === "bigint" ? "n" : "";
  const conditions = [
    ...(value.rangeIsSure ? [] : [value.kind === "bigint" ? 'typeof value === "bigint"' : "Number.isInteger(value)"]),
    ...(rules.min === undefined ? [] : [`value >= ${rules.min}${suffix}`]),
    ...(rules.max === undefined ? [] : [`value <= ${rules.max}${suffix}`]),
  ];
  const words = rangeText(rules)!;
  const rule = value.rangeIsSure ? words.rule : words.rule.replace(/^must be /, "must be an integer, ");
  const type = value.kind === "bigint" ? "bigint" : "number";
  return checkFunction(value, type, conditions.join(" && "), "showValue(value)", { ...words, rule });
}

/** The rules where the type makes sure of its own range, else the narrower of both. */
function effectiveRange(value: CheckedValue): Rules {
  const { rules, range, rangeIsSure } = value;
  if (!rangeIsSure && range !== undefined) {
    return { min: rules.min ?? range.min, max: rules.max ?? range.max };
  }
  const min = rules.min !== undefined && range !== undefined && rules.min <= range.min ? undefined : rules.min;
  return { ...(min === undefined ? {} : { min }), ...(rules.max === undefined ? {} : { max: rules.max }) };
}

function typeofCheck(value: CheckedValue): string {
  const words = { rule: "must be true or false", remedy: "Give a boolean." };
  return checkFunction(value, "boolean", 'typeof value === "boolean"', "showValue(value)", words);
}

function textCheck(value: CheckedValue): string {
  const { kind, rules } = value;
  const words = bytesText(rules, kind);
  const rulesName = `${value.functionName.charAt(5).toLowerCase()}${value.functionName.slice(6)}Rules`;
  const entries = [
    ["path", stringLiteral(value.path)],
    ["minBytes", String(rules.minBytes ?? 0)],
    ["maxBytes", rules.maxBytes === undefined ? "Number.POSITIVE_INFINITY" : String(rules.maxBytes)],
    ["bytesRule", words && stringLiteral(words.rule)],
    ["bytesRemedy", words && stringLiteral(words.remedy)],
    ["pattern", rules.pattern && patternLiteral(rules.pattern.source)],
    ["means", rules.pattern && stringLiteral(rules.pattern.means)],
    ["values", rules.in && `[${rules.in.map(stringLiteral).join(", ")}]`],
  ].filter(([, text]) => text !== undefined);
  const check = kind === "string" ? "checkText" : "checkBytes";
  const type = kind === "string" ? "string" : "Uint8Array";
  return [
    `const ${rulesName}: TextRules = {\n${entries.map(([name, text]) => `  ${name}: ${text},\n`).join("")}};\n`,
    `${docOf(value)}export function ${value.functionName}(value: ${type}): Violation | undefined {`,
    `  return ${check}(${rulesName}, value);`,
    "}",
    "",
  ].join("\n");
}

function checkFunction(value: CheckedValue, type: string, good: string, shown: string, words: RuleText): string {
  return [
    `${docOf(value)}export function ${value.functionName}(value: ${type}): Violation | undefined {`,
    `  return ${good}`,
    "    ? undefined",
    `    : violation(${[stringLiteral(value.path), shown, stringLiteral(words.rule), stringLiteral(words.remedy)].join(", ")});`,
    "}",
    "",
  ].join("\n");
}

function docOf(value: CheckedValue): string {
  const phrases = limitPhrases(value.rules, value.kind);
  const limits = phrases.length === 0 ? "" : ` Limits: ${phrases.join("; ")}.`;
  return docstring(`Checks \`${value.origin}\`.${limits}${value.comment === "" ? "" : `\n\n${value.comment}`}`);
}
