import { conditionWords, optionsOf, readCondition } from "./condition.js";
import type { Option, Rule } from "./model.js";
import type { SchemaNode } from "./schema-node.js";

const annotations = ["$comment", "description", "x-whole-only", "x-violation"];

/**
 * The rules over several options: those of `dependentRequired` first, whose messages follow from their form, then
 * those of `allOf`, which bring theirs as `x-violation`.
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
        at: `#/dependentRequired/${option}/${needed}`,
        description: `${option} needs ${needed}`,
        holds: {
          kind: "any",
          of: [
            { kind: "not", of: { kind: "has", option } },
            { kind: "has", option: needed },
          ],
        },
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
  return root.children("allOf").map((node, index): Rule => {
    node.closed([...annotations, ...conditionWords]);
    const holds = readCondition(node.without(annotations), options);
    return {
      at: `#/allOf/${index}`,
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
