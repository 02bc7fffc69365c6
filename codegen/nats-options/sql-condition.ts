import { sqlString } from "../sql/literal.js";
import type { Condition } from "./condition.js";
import { jsonbConstant } from "./sql-function.js";

/**
 * A rule's condition over the jsonb variable `typed`; never null.
 *
 * @param beside the word that stands before or after it, so that it gets parentheses where it needs them.
 */
export function conditionSql(condition: Condition, beside?: "AND" | "OR"): string {
  switch (condition.kind) {
    case "has":
      return `typed ? ${sqlString(condition.option)}`;
    case "unset-or":
      return `coalesce(typed -> ${sqlString(condition.option)} = ${jsonbConstant(condition.value)}, true)`;
    case "not":
      return `NOT (${conditionSql(condition.of)})`;
    case "all":
      return joined(condition.of, "AND", beside);
    case "any":
      return joined(condition.of, "OR", beside);
  }
}

function joined(parts: readonly Condition[], word: "AND" | "OR", beside: "AND" | "OR" | undefined): string {
  const sql = parts.map((part) => conditionSql(part, word)).join(` ${word} `);
  return beside === undefined || beside === word ? sql : `(${sql})`;
}
