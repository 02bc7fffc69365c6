import {
  bytesText,
  headerTexts,
  itemsText,
  listBytesText,
  rangeText,
  valuesText,
} from "../validators/runtime/violation.js";
import type { Rules } from "./rules.js";
import type { ValueKind } from "./value-kind.js";

/** Phrases for all rules of a value, without "must be": for reference pages and docstrings. */
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
  if (kind === "json") {
    const headers = headerTexts(rules);
    if (headers !== undefined) phrases.push(headers.rule.replace(/^must have /, ""));
  } else if (rules.maxItems !== undefined) {
    phrases.push(itemsText(rules.maxItems, rules.minItems).rule.replace(/^must have /, ""));
  }
  const list = listBytesText(rules);
  if (list !== undefined) phrases.push(list.rule.replace(/^must have /, ""));
  if (rules.required) {
    phrases.push("required");
  }
  return phrases;
}
