import { findDuplicateKey } from "./duplicate-keys.js";
import { type Option, type OptionsModel, type SqlstateKind, sqlstateKinds } from "./model.js";
import { readAuthModes } from "./read-auth.js";
import { readOption } from "./read-option.js";
import { readRules } from "./read-rules.js";
import { SchemaError } from "./schema-error.js";
import { type Json, type JsonObject, SchemaNode } from "./schema-node.js";

const dialect = "https://json-schema.org/draft/2020-12/schema";
const words = [
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
 * @param text the schema's JSON text.
 * @param file its path relative to the root of the project, for messages and heads.
 * @throws SchemaError at the first thing that is wrong, with the file and the element.
 */
export function readOptionsSchema(text: string, file: string): OptionsModel {
  const root = parse(text, file).closed(words);
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
    title,
    description: root.text("description"),
    options: [...options.values()],
    rules: readRules(root, options),
    sqlstates: readSqlstates(root.child("x-sqlstate")),
    modes: readAuthModes(root, options),
    bareSchema: bareSchema(root, nodes),
  };
}

function parse(text: string, file: string): SchemaNode {
  let json: Json;
  try {
    json = JSON.parse(text) as Json;
  } catch (error) {
    throw new SchemaError(file, "", `is not JSON: ${(error as Error).message}`);
  }
  const twin = findDuplicateKey(text);
  if (twin !== undefined) {
    throw new SchemaError(file, twin.pointer, `stands twice in its object; the second time in line ${twin.line}`);
  }
  return SchemaNode.of(file, "", json);
}

/** The options, each `$ref` to one of `$defs` put in place; what the option says itself wins. */
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

function bareSchema(root: SchemaNode, nodes: readonly [string, SchemaNode][]): JsonObject {
  const properties = Object.fromEntries(nodes.map(([name, node]) => [name, bare(node.json)]));
  return { ...(bare(root.without(["$defs"]).json) as JsonObject), properties };
}

const annotation = /^(?:x-.*|\$.*|title|description|default)$/;
/** Words whose keys are names of options, which may be called like an annotation. */
const wordsOverNames = ["properties", "dependentRequired"];

/** Without annotations, which say nothing about what is valid. */
function bare(value: Json, overNames = false): Json {
  if (Array.isArray(value)) {
    return value.map((element) => bare(element));
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const entries = Object.entries(value).filter(([key]) => overNames || !annotation.test(key));
  return Object.fromEntries(
    entries.map(([key, inner]) => [key, bare(inner, !overNames && wordsOverNames.includes(key))]),
  );
}
