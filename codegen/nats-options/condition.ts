import type { Option } from "./model.js";
import type { Json, SchemaNode } from "./schema-node.js";

/** What a rule demands of the set of options. */
export type Condition =
  | { readonly kind: "has"; readonly option: string }
  | { readonly kind: "unset-or"; readonly option: string; readonly value: string | number | boolean }
  | { readonly kind: "not"; readonly of: Condition }
  | { readonly kind: "all" | "any"; readonly of: readonly Condition[] };

/** The words of JSON Schema that a rule may use; all of them have a counterpart in SQL. */
export const conditionWords = ["required", "properties", "not", "anyOf", "allOf", "if", "then", "else"];

/**
 * Reads the part of JSON Schema that rules are written in as a condition. JSON Schema's meaning is kept: `properties`
 * says nothing about an option that is not set.
 *
 * @throws SchemaError at a word outside {@link conditionWords}, an unknown option, or a `const` of another type.
 */
export function readCondition(node: SchemaNode, options: ReadonlyMap<string, Option>): Condition {
  node.closed(conditionWords);
  const parts: Condition[] = node.names("required", new Set(options.keys())).map(has);
  if (node.has("properties")) {
    parts.push(...readConstants(node.child("properties"), options));
  }
  if (node.has("not")) {
    parts.push(not(readCondition(node.child("not"), options)));
  }
  if (node.has("anyOf")) {
    parts.push(any(node.children("anyOf").map((child) => readCondition(child, options))));
  }
  parts.push(...node.children("allOf").map((child) => readCondition(child, options)));
  parts.push(...readBranches(node, options));
  if (parts.length === 0) {
    throw node.error(`demands nothing; use ${conditionWords.join(", ")}`);
  }
  return all(parts);
}

function readConstants(node: SchemaNode, options: ReadonlyMap<string, Option>): Condition[] {
  return node.keys().map((name) => {
    const option = options.get(name);
    if (option === undefined) {
      throw node.error("is not an option", name);
    }
    const value = node.child(name).closed(["const"]).get("const");
    if (!isOfType(option, value)) {
      throw node.error(`needs a const of type ${option.type}`, name);
    }
    return { kind: "unset-or", option: name, value };
  });
}

function readBranches(node: SchemaNode, options: ReadonlyMap<string, Option>): Condition[] {
  if (!node.has("if")) {
    if (node.has("then") || node.has("else")) {
      throw node.error("has then or else without if");
    }
    return [];
  }
  const condition = readCondition(node.child("if"), options);
  const branches: Condition[] = [];
  if (node.has("then")) {
    branches.push(any([not(condition), readCondition(node.child("then"), options)]));
  }
  if (node.has("else")) {
    branches.push(any([condition, readCondition(node.child("else"), options)]));
  }
  return branches;
}

function isOfType(option: Option, value: Json | undefined): value is string | number | boolean {
  return option.type === "integer" ? Number.isSafeInteger(value) : typeof value === option.type;
}

/** The option is set. */
function has(option: string): Condition {
  return { kind: "has", option };
}

function not(of: Condition): Condition {
  return of.kind === "not" ? of.of : { kind: "not", of };
}

function any(of: readonly Condition[]): Condition {
  return of.length === 1 ? of[0]! : { kind: "any", of };
}

function all(of: readonly Condition[]): Condition {
  return of.length === 1 ? of[0]! : { kind: "all", of };
}

/** The opposite, with `not` only around what asks about one option: what is easily read in SQL. */
export function negate(condition: Condition): Condition {
  switch (condition.kind) {
    case "has":
    case "unset-or":
      return { kind: "not", of: condition };
    case "not":
      return condition.of;
    case "all":
      return any(condition.of.map(negate));
    case "any":
      return all(condition.of.map(negate));
  }
}

/** The options a condition looks at. */
export function optionsOf(condition: Condition): Set<string> {
  switch (condition.kind) {
    case "has":
    case "unset-or":
      return new Set([condition.option]);
    case "not":
      return optionsOf(condition.of);
    case "all":
    case "any":
      return new Set(condition.of.flatMap((part) => [...optionsOf(part)]));
  }
}
