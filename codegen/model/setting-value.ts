import type { DescField } from "@bufbuild/protobuf";
import { bytesText, rangeText, valuesText } from "../validators/runtime/violation.js";
import type { Rules } from "./rules.js";
import type { Setting, SettingValue } from "./settings.js";
import { SpecError } from "./spec-error.js";
import type { IntegerRange } from "./value-kind.js";

/** Settings are numbers in TypeScript, also where the field has 64 bits. */
export const greatestExactInteger = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * A setting's default, from JSON.
 *
 * @throws SpecError if it is no JSON, of another type than the field, or against the setting's own rules.
 */
export function checkSettingDefault(
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
