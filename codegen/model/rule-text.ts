import type { Rules } from "./rules.js";
import type { ValueKind } from "./value-kind.js";

/** A rule in words: what must hold, and what to do where it does not. */
export interface RuleText {
  readonly rule: string;
  readonly remedy: string;
}

/** The range of numbers in words: "must be 1 to 10". Undefined without limits. */
export function rangeText(rules: Rules): RuleText | undefined {
  const limits = between(rules.min, rules.max, "");
  return limits === undefined ? undefined : { rule: `must be ${limits}`, remedy: `Use a value of ${limits}.` };
}

/** The length in words: "must be 1 to 255 bytes long in UTF-8". Undefined without limits. */
export function bytesText(rules: Rules, kind: ValueKind): RuleText | undefined {
  const minBytes = rules.minBytes === 0 ? undefined : rules.minBytes;
  const limits = between(minBytes, rules.maxBytes, " bytes");
  const encoding = kind === "string" ? " in UTF-8" : "";
  return limits === undefined
    ? undefined
    : { rule: `must be ${limits} long${encoding}`, remedy: `Use ${limits}${encoding}.` };
}

/** The greatest number of elements in words. */
export function itemsText(maxItems: number): RuleText {
  return {
    rule: `must have at most ${maxItems} elements`,
    remedy: `Split it into lists of at most ${maxItems} elements.`,
  };
}

/** The allowed values in words. */
export function valuesText(values: readonly string[]): RuleText {
  const list = values.map((value) => JSON.stringify(value)).join(", ");
  return { rule: `must be one of ${list}`, remedy: "Use one of these values." };
}

/** All rules of a value, one phrase each, without "must be": for reference pages and docstrings. */
export function limitPhrases(rules: Rules, kind: ValueKind): string[] {
  const phrases = [rangeText(rules), bytesText(rules, kind)].flatMap((text) =>
    text === undefined ? [] : [text.rule.replace(/^must be /, "")],
  );
  if (rules.in !== undefined) {
    phrases.push(valuesText(rules.in).rule.replace(/^must be /, ""));
  }
  if (rules.pattern !== undefined) {
    phrases.push(rules.pattern.means);
  }
  if (rules.maxItems !== undefined) {
    phrases.push(`at most ${rules.maxItems} elements`);
  }
  if (rules.required) {
    phrases.push("required");
  }
  return phrases;
}

function between(min: bigint | number | undefined, max: bigint | number | undefined, unit: string): string | undefined {
  if (min === undefined && max === undefined) {
    return undefined;
  }
  if (min === undefined) {
    return `at most ${max}${unit}`;
  }
  if (max === undefined) {
    return `at least ${min}${unit}`;
  }
  return min === max ? `exactly ${min}${unit}` : `${min} to ${max}${unit}`;
}
