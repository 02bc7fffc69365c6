import { patternProblem } from "../model/pattern.js";
import type { BooleanOption, IntegerOption, Option, StringOption } from "./model.js";
import type { SchemaNode } from "./schema-node.js";

const commonWords = ["$comment", "type", "description", "default", "x-remedy", "x-connection"];
const wordsOfType = {
  string: [
    ...commonWords,
    "minLength",
    "maxLength",
    "pattern",
    "x-pattern-means",
    "x-secret",
    "x-path",
    "x-user-mapping",
  ],
  integer: [...commonWords, "minimum", "maximum"],
  boolean: commonWords,
};

/** Postgres cuts longer names off, silently. */
const maxNameBytes = 63;

/** @throws SchemaError at whatever is missing, unknown or in contradiction to the rest. */
export function readOption(name: string, node: SchemaNode): Option {
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
        `unknown option type ${JSON.stringify(type)}; use one of ${Object.keys(wordsOfType).join(", ")}`,
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
  node.closed(wordsOfType.string);
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
  };
  const value = node.get("default");
  return value === undefined ? option : { ...option, default: stringDefault(node, option, value) };
}

function readPattern(node: SchemaNode): StringOption["pattern"] {
  if (!node.has("pattern")) {
    if (node.has("x-pattern-means")) {
      throw node.error("stands without a pattern", "x-pattern-means");
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
  node.closed(wordsOfType.integer);
  const minimum = node.integer("minimum");
  const maximum = node.integer("maximum");
  if (minimum === undefined || maximum === undefined) {
    throw node.error("is missing: every number has a range", minimum === undefined ? "minimum" : "maximum");
  }
  if (minimum > maximum) {
    throw node.error(`is above the maximum, ${maximum}`, "minimum");
  }
  // The numbers at the very end stand for all beyond them (see grammar.ts), so they cannot be a limit.
  if (minimum === Number.MIN_SAFE_INTEGER || maximum === Number.MAX_SAFE_INTEGER) {
    throw node.error("has a limit at the end of what JavaScript holds exactly; choose a nearer one");
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
  node.closed(wordsOfType.boolean);
  const option = { ...readBase(name, node), type: "boolean" as const };
  return node.has("default") ? { ...option, default: node.flag("default") } : option;
}
