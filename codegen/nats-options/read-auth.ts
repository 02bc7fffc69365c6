import type { AuthMode, Option } from "./model.js";
import type { SchemaNode } from "./schema-node.js";

/**
 * The authentication modes of `x-auth-priority`, in their order.
 *
 * @throws SchemaError if a mode stands twice, names an unknown option or one that is not a credential, can never be
 *   reached, if the last one needs an option (then a set of options might match none), or if a credential is in none.
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
      throw node.error(`is never reached: "${earlier.mode}" comes first and matches whenever this one does`);
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
  const stranger = requires.find((name) => options.get(name)?.userMapping !== true);
  if (stranger !== undefined) {
    throw node.error(`"${stranger}" is not a credential: it lacks x-user-mapping`, "requires");
  }
  return { mode, requires, description: node.text("description") };
}
