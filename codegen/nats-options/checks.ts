import type { Option } from "./model.js";

/** Limit of an option's value, and the message for a value beyond it: the same text in TypeScript and SQL. */
export type Limit =
  | {
      readonly keyword: "minLength" | "maxLength" | "minimum" | "maximum";
      readonly limit: number;
      readonly rule: string;
    }
  | { readonly keyword: "pattern"; readonly limit: string; readonly rule: string };

/** Message for a value of the wrong type. */
export function typeRule(option: Option): string {
  switch (option.type) {
    case "string":
      return "must be text";
    case "boolean":
      return "must be a boolean";
    case "integer":
      return `must be an integer from ${option.minimum} to ${option.maximum}`;
  }
}

/** Limits of an option's value, in the order in which they are checked. */
export function limitsOf(option: Option): Limit[] {
  switch (option.type) {
    case "boolean":
      return [];
    case "integer":
      return [
        { keyword: "minimum", limit: option.minimum, rule: typeRule(option) },
        { keyword: "maximum", limit: option.maximum, rule: typeRule(option) },
      ];
    case "string": {
      const { minLength, maxLength, pattern } = option;
      const least = minLength === 1 ? "must not be empty" : `must have at least ${minLength} characters`;
      return [
        ...(minLength > 0 ? [{ keyword: "minLength" as const, limit: minLength, rule: least }] : []),
        { keyword: "maxLength", limit: maxLength, rule: `must have at most ${maxLength} characters` },
        ...(pattern ? [{ keyword: "pattern" as const, limit: pattern.source, rule: `must be ${pattern.means}` }] : []),
      ];
    }
  }
}
