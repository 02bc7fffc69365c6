import { patternProblem } from "../../src/typed/pattern.js";
import type { NamedRules } from "../model/rules.js";
import {
  type BooleanOption,
  type IntegerOption,
  type Option,
  type OptionsModel,
  type SqlstateKind,
  type StringOption,
  sqlstateKinds,
} from "./model.js";
import { readAuthModes, readRules } from "./read-rules.js";
import { findDuplicateKey, type Json, SchemaError, SchemaNode } from "./schema-node.js";

const dialect = "https://json-schema.org/draft/2020-12/schema";
const keywords = [
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "title",
  "description",
  "type",
  "additionalProperties",
  "properties",
  "dependentRequired",
  "allOf",
  "x-sqlstate",
  "x-auth-priority",
];
const definitionPrefix = "#/$defs/";

/**
 * Reads the options schema.
 *
 * @param text the schema's JSON text
 * @param file path relative to the root of the project, for messages and head lines
 * @throws SchemaError at the first mistake, with the file and the element
 */
export function readOptionsSchema(text: string, file: string): OptionsModel {
  const root = parse(text, file).closed(keywords);
  if (root.get("$schema") !== dialect) {
    throw root.error(`is not "${dialect}"`, "$schema");
  }
  if (root.get("type") !== "object") {
    throw root.error('is not "object"', "type");
  }
  if (root.get("additionalProperties") !== false) {
    throw root.error("is not false: an unknown option must be refused", "additionalProperties");
  }
  const title = root.text("title");
  if (!/^[A-Z][A-Za-z0-9]*$/.test(title)) {
    throw root.error("is not the name of a TypeScript type", "title");
  }
  const nodes = optionNodes(root);
  const options = new Map<string, Option>(nodes.map(([name, node]) => [name, readOption(name, node)]));
  return {
    file,
    schema: root.json,
    title,
    description: root.text("description"),
    options: [...options.values()],
    rules: readRules(root, options),
    sqlstates: readSqlstates(root.child("x-sqlstate")),
    modes: readAuthModes(root, options),
  };
}

/**
 * Refuses an option whose pattern differs from the named rules of the proto files that its `x-rules` names. The schema
 * repeats the pattern so that it is self-contained.
 *
 * @throws SchemaError if they differ
 */
export function refuseOtherRules(model: OptionsModel, named: readonly NamedRules[]): void {
  for (const option of model.options) {
    if (option.type !== "string" || option.rules === undefined) continue;
    const pattern = named.find(({ name }) => name === option.rules)?.rules.pattern;
    const isSame = pattern?.source === option.pattern?.source && pattern?.means === `must be ${option.pattern?.means}`;
    if (pattern === undefined || !isSame) {
      const problem =
        pattern === undefined
          ? `"${option.rules}" does not name rules with a pattern`
          : `pattern and x-pattern-means differ from those of "${option.rules}", "${pattern.source}" (${pattern.means})`;
      throw new SchemaError(model.file, `/properties/${option.name}/x-rules`, problem);
    }
  }
}

function parse(text: string, file: string): SchemaNode {
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch (error) {
    throw new SchemaError(file, "", `is not JSON: ${(error as Error).message}`);
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) {
    throw new SchemaError(
      file,
      duplicate.pointer,
      `occurs twice in its object; the second time in line ${duplicate.line}`,
    );
  }
  return SchemaNode.of(file, "", json);
}

/** Options with each `$ref` to one of `$defs` resolved; the option's own keywords take precedence. */
function optionNodes(root: SchemaNode): [name: string, node: SchemaNode][] {
  const properties = root.child("properties");
  if (properties.keys().length === 0) {
    throw properties.error("has no option");
  }
  return properties.keys().map((name) => {
    const node = properties.child(name);
    if (!node.has("$ref")) {
      return [name, node];
    }
    const reference = node.get("$ref");
    const definition = typeof reference === "string" ? reference.slice(definitionPrefix.length) : "";
    if (reference !== definitionPrefix + definition || !root.has("$defs") || !root.child("$defs").has(definition)) {
      throw node.error(`${JSON.stringify(reference)} is none of this schema's $defs`, "$ref");
    }
    const merged = { ...root.child("$defs").child(definition).json, ...node.without(["$ref"]).json };
    return [name, new SchemaNode(node.file, node.pointer, merged)];
  });
}

function readSqlstates(node: SchemaNode): Record<SqlstateKind, string> {
  node.closed(sqlstateKinds);
  const entries = sqlstateKinds.map((kind) => {
    const sqlstate = node.text(kind);
    if (!/^[0-9A-Z]{5}$/.test(sqlstate) || sqlstate.startsWith("00")) {
      throw node.error(`"${sqlstate}" is not the SQLSTATE of an error`, kind);
    }
    return [kind, sqlstate];
  });
  return Object.fromEntries(entries) as Record<SqlstateKind, string>;
}

const commonKeywords = ["$comment", "type", "description", "default", "x-remedy", "x-connection"];
const keywordsOfType = {
  string: [
    ...commonKeywords,
    "minLength",
    "maxLength",
    "pattern",
    "x-pattern-means",
    "x-rules",
    "x-secret",
    "x-path",
    "x-user-mapping",
  ],
  integer: [...commonKeywords, "minimum", "maximum"],
  boolean: commonKeywords,
};

/** Postgres truncates longer names without an error. */
const maxNameBytes = 63;

/** @throws SchemaError at anything missing, unknown or contradictory */
function readOption(name: string, node: SchemaNode): Option {
  if (!/^[a-z][a-z0-9_]*$/.test(name) || name.length > maxNameBytes) {
    throw node.error(`is not a lower_snake_case name of at most ${maxNameBytes} bytes`);
  }
  const type = node.get("type");
  switch (type) {
    case "string":
      return readStringOption(name, node);
    case "integer":
      return readIntegerOption(name, node);
    case "boolean":
      return readBooleanOption(name, node);
    default:
      throw node.error(
        `unknown option type ${JSON.stringify(type)}; use one of ${Object.keys(keywordsOfType).join(", ")}`,
        "type",
      );
  }
}

function readBase(name: string, node: SchemaNode) {
  return {
    name,
    description: node.text("description"),
    remedy: node.text("x-remedy"),
    secret: node.flag("x-secret"),
    path: node.flag("x-path"),
    userMapping: node.flag("x-user-mapping"),
    connection: node.flag("x-connection"),
  };
}

function readStringOption(name: string, node: SchemaNode): StringOption {
  node.closed(keywordsOfType.string);
  const minLength = node.integer("minLength") ?? 0;
  const maxLength = node.integer("maxLength");
  if (maxLength === undefined) {
    throw node.error("is missing: every text has a limit", "maxLength");
  }
  if (minLength < 0 || minLength > maxLength) {
    throw node.error(`is not from 0 to maxLength, ${maxLength}`, "minLength");
  }
  const pattern = readPattern(node);
  const option = {
    ...readBase(name, node),
    type: "string" as const,
    minLength,
    maxLength,
    ...(pattern && { pattern }),
    ...(node.has("x-rules") && { rules: node.text("x-rules") }),
  };
  const value = node.get("default");
  return value === undefined ? option : { ...option, default: stringDefault(node, option, value) };
}

function readPattern(node: SchemaNode): StringOption["pattern"] {
  if (!node.has("pattern")) {
    if (node.has("x-pattern-means")) {
      throw node.error("needs a pattern", "x-pattern-means");
    }
    return undefined;
  }
  const source = node.text("pattern");
  const problem = patternProblem(source);
  if (problem !== undefined) {
    throw node.error(problem, "pattern");
  }
  return { source, means: node.text("x-pattern-means") };
}

function stringDefault(node: SchemaNode, option: StringOption, value: unknown): string {
  if (option.secret) {
    throw node.error("a secret has no default", "default");
  }
  if (typeof value !== "string") {
    throw node.error("is not a string", "default");
  }
  const length = [...value].length;
  if (length < option.minLength || length > option.maxLength) {
    throw node.error(`is not ${option.minLength} to ${option.maxLength} characters long`, "default");
  }
  if (option.pattern !== undefined && !new RegExp(option.pattern.source, "u").test(value)) {
    throw node.error(`is not ${option.pattern.means}`, "default");
  }
  return value;
}

function readIntegerOption(name: string, node: SchemaNode): IntegerOption {
  node.closed(keywordsOfType.integer);
  const minimum = node.integer("minimum");
  const maximum = node.integer("maximum");
  if (minimum === undefined || maximum === undefined) {
    throw node.error("is missing: every number has a range", minimum === undefined ? "minimum" : "maximum");
  }
  if (minimum > maximum) {
    throw node.error(`is above the maximum, ${maximum}`, "minimum");
  }
  // The numbers at both ends stand for everything beyond them (see grammar.ts), so they cannot be limits.
  if (minimum === Number.MIN_SAFE_INTEGER || maximum === Number.MAX_SAFE_INTEGER) {
    throw node.error("has a limit at the end of the range of exact integers in JavaScript; choose a smaller one");
  }
  const option = { ...readBase(name, node), type: "integer" as const, minimum, maximum };
  const value = node.integer("default");
  if (value === undefined) {
    return option;
  }
  if (value < minimum || value > maximum) {
    throw node.error(`${value} is outside its range, ${minimum} to ${maximum}`, "default");
  }
  return { ...option, default: value };
}

function readBooleanOption(name: string, node: SchemaNode): BooleanOption {
  node.closed(keywordsOfType.boolean);
  const option = { ...readBase(name, node), type: "boolean" as const };
  return node.has("default") ? { ...option, default: node.flag("default") } : option;
}
