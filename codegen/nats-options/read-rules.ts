import { type AuthMode, all, any, type Condition, has, not, type Option, optionsOf, type Rule } from "./model.js";
import type { Json, SchemaNode } from "./schema-node.js";

const annotations = ["$comment", "description", "x-whole-only", "x-violation"];

/**
 * Rules over several options: first those of `dependentRequired`, whose messages follow from their form, then those of
 * `allOf`, whose messages are in `x-violation`.
 */
export function readRules(root: SchemaNode, options: ReadonlyMap<string, Option>): Rule[] {
  return [...readDependencies(root, options), ...readStatements(root, options)];
}

function readDependencies(root: SchemaNode, options: ReadonlyMap<string, Option>): Rule[] {
  if (!root.has("dependentRequired")) {
    return [];
  }
  const node = root.child("dependentRequired").closed([...options.keys()]);
  return node.keys().flatMap((option) =>
    node.names(option, new Set(options.keys())).map((needed): Rule => {
      if (needed === option) {
        throw node.error("needs itself", option);
      }
      return {
        description: `${option} needs ${needed}`,
        holds: any([not(has(option)), has(needed)]),
        about: inOrder(new Set([option, needed]), options),
        wholeOnly: false,
        violation: {
          option: needed,
          kind: "missing",
          message: `option "${needed}" is missing: ${option} needs it`,
          hint: `Add ${needed}, or drop ${option}.`,
        },
      };
    }),
  );
}

function readStatements(root: SchemaNode, options: ReadonlyMap<string, Option>): Rule[] {
  return root.children("allOf").map((node): Rule => {
    node.closed([...annotations, ...conditionKeywords]);
    const holds = readCondition(node.without(annotations), options);
    return {
      description: node.text("description"),
      holds,
      about: inOrder(optionsOf(holds), options),
      wholeOnly: node.flag("x-whole-only"),
      violation: readViolation(node.child("x-violation"), options),
    };
  });
}

function readViolation(node: SchemaNode, options: ReadonlyMap<string, Option>): Rule["violation"] {
  node.closed(["option", "kind", "message", "hint"]);
  const option = node.text("option");
  if (!options.has(option)) {
    throw node.error(`names the unknown option "${option}"`, "option");
  }
  const kind = node.get("kind");
  if (kind !== "missing" && kind !== "conflict") {
    throw node.error(`${JSON.stringify(kind)} is neither "missing" nor "conflict"`, "kind");
  }
  return { option, kind, message: node.text("message"), hint: node.text("hint") };
}

function inOrder(names: ReadonlySet<string>, options: ReadonlyMap<string, Option>): string[] {
  return [...options.keys()].filter((name) => names.has(name));
}

/** Keywords of JSON Schema that a rule may use; all of them have a counterpart in SQL. */
const conditionKeywords = ["required", "properties", "not", "anyOf", "allOf", "if", "then", "else"];

/**
 * Reads a rule, written in a subset of JSON Schema, as a condition. The semantics are those of JSON Schema:
 * `properties` does not apply to an option that is not set.
 *
 * @throws SchemaError at a keyword outside {@link conditionKeywords}, an unknown option, or a `const` of another type
 */
function readCondition(node: SchemaNode, options: ReadonlyMap<string, Option>): Condition {
  node.closed(conditionKeywords);
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
    throw node.error(`demands nothing; use ${conditionKeywords.join(", ")}`);
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

/**
 * Reads the authentication modes of `x-auth-priority`, in their order.
 *
 * @throws SchemaError if a mode occurs twice, names an unknown option or one that is not a credential, or can never be
 * reached; if the last mode requires an option, because a set of options might then match no mode; or if no mode uses a
 * credential
 */
export function readAuthModes(root: SchemaNode, options: ReadonlyMap<string, Option>): AuthMode[] {
  const key = "x-auth-priority";
  const nodes = root.children(key);
  const modes: AuthMode[] = [];
  for (const [index, node] of nodes.entries()) {
    const mode = readMode(node, options);
    if (modes.some((other) => other.mode === mode.mode)) {
      throw node.error(`lists the mode "${mode.mode}" twice`, "mode");
    }
    const earlier = modes.find((other) => other.requires.every((option) => mode.requires.includes(option)));
    if (earlier !== undefined) {
      throw node.error(`is never reached: "${earlier.mode}" comes first and matches whenever this mode does`);
    }
    if (index === nodes.length - 1 && mode.requires.length > 0) {
      throw node.error(
        "is the last mode and must require nothing, so that every set of options has a mode",
        "requires",
      );
    }
    modes.push(mode);
  }
  if (modes.length === 0) {
    throw root.error("is missing or empty", key);
  }
  const used = new Set(modes.flatMap((mode) => mode.requires));
  const unused = [...options.values()].find((option) => option.userMapping && !used.has(option.name));
  if (unused !== undefined) {
    throw root.error(`has no mode for the credential "${unused.name}"`, key);
  }
  return modes;
}

function readMode(node: SchemaNode, options: ReadonlyMap<string, Option>): AuthMode {
  node.closed(["mode", "requires", "description"]);
  const mode = node.text("mode");
  if (!/^[a-z][a-z0-9_]*$/.test(mode)) {
    throw node.error(`"${mode}" is not a lower_snake_case name`, "mode");
  }
  if (!node.has("requires")) {
    throw node.error("is missing", "requires");
  }
  const requires = node.names("requires", new Set(options.keys()));
  const other = requires.find((name) => options.get(name)?.userMapping !== true);
  if (other !== undefined) {
    throw node.error(`"${other}" is not a credential: it lacks x-user-mapping`, "requires");
  }
  return { mode, requires, description: node.text("description") };
}
