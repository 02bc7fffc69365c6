import type { Option, OptionsModel, Rule } from "./model.js";

/** One thing that can be wrong with a set of options, and what is said then: the same words in TypeScript and SQL. */
export type Check = ValueCheck | RuleCheck;

interface CheckBase {
  /** Where Ajv reports it. */
  readonly at: string;
  /** The option that the violation names. */
  readonly option: string;
  readonly sqlstate: string;
  readonly message: string;
  readonly hint: string;
}

/** A check of one option's value. */
export interface ValueCheck extends CheckBase {
  readonly kind: "value";
  readonly keyword: "type" | "minLength" | "maxLength" | "pattern" | "minimum" | "maximum";
  readonly of: Option;
}

/** A check over several options. */
export interface RuleCheck extends CheckBase {
  readonly kind: "rule";
  readonly rule: Rule;
}

/**
 * All checks, in the order in which the first violation is looked for: types, then the rules over several options,
 * then ranges, lengths and patterns. Rules come before the latter because what contradicts itself is the greater
 * mistake; they come after types because they look at the values of booleans.
 */
export function listChecks(model: OptionsModel): Check[] {
  return [
    ...model.options.map((option) => typeCheck(option, model)),
    ...model.rules.map((rule) => ruleCheck(rule, model)),
    ...model.options.flatMap((option) => limitChecks(option, model)),
  ];
}

function typeCheck(option: Option, model: OptionsModel): ValueCheck {
  const kind = { string: "text", boolean: "a boolean", integer: "" }[option.type];
  return valueCheck(option, model, "type", option.type === "integer" ? rangePhrase(option) : `must be ${kind}`);
}

function limitChecks(option: Option, model: OptionsModel): ValueCheck[] {
  switch (option.type) {
    case "boolean":
      return [];
    case "integer":
      return [
        valueCheck(option, model, "minimum", rangePhrase(option)),
        valueCheck(option, model, "maximum", rangePhrase(option)),
      ];
    case "string": {
      const checks: ValueCheck[] = [];
      if (option.minLength > 0) {
        const least =
          option.minLength === 1 ? "must not be empty" : `must have at least ${option.minLength} characters`;
        checks.push(valueCheck(option, model, "minLength", least));
      }
      checks.push(valueCheck(option, model, "maxLength", `must have at most ${option.maxLength} characters`));
      if (option.pattern !== undefined) {
        checks.push(valueCheck(option, model, "pattern", `must be ${option.pattern.means}`));
      }
      return checks;
    }
  }
}

function rangePhrase(option: Option & { type: "integer" }): string {
  return `must be an integer from ${option.minimum} to ${option.maximum}`;
}

function valueCheck(of: Option, model: OptionsModel, keyword: ValueCheck["keyword"], phrase: string): ValueCheck {
  return {
    kind: "value",
    at: `#/properties/${of.name}/${keyword}`,
    option: of.name,
    sqlstate: model.sqlstates.value,
    message: `option "${of.name}" ${phrase}`,
    hint: of.remedy,
    keyword,
    of,
  };
}

function ruleCheck(rule: Rule, model: OptionsModel): RuleCheck {
  const { option, kind, message, hint } = rule.violation;
  return { kind: "rule", at: rule.at, option, sqlstate: model.sqlstates[kind], message, hint, rule };
}
