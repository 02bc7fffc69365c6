import { docstring } from "../typescript.js";
import type { AuthMode, OptionsModel } from "./model.js";

/** The resolver of the authentication mode. */
export function printAuth(model: OptionsModel): string {
  const modes = model.modes.map(({ mode }) => `"${mode}"`).join(", ");
  return `
import type { ${model.title} } from "./types.js";

/** The authentication modes, the first that matches wins. */
export const authModes = [${modes}] as const;
export type NatsAuthMode = (typeof authModes)[number];

/** How to authenticate, with the options that it takes. */
export type NatsAuth =
${model.modes.map(printVariant).join("\n")};

/**
 * The first mode whose options are all set. The empty string counts as set.
 *
 * The SQL function \`hawser.nats_auth_mode\` gives the same answer.
 */
export function resolveAuth(options: ${model.title}): NatsAuth {
${model.modes.map(printBranch).join("\n")}
}
`;
}

function printVariant({ mode, requires, description }: AuthMode): string {
  const fields = [`readonly mode: "${mode}"`, ...requires.map((option) => `readonly ${option}: string`)];
  return `${docstring(sentence(description), "  ")}  | { ${fields.join("; ")} }`;
}

function printBranch({ mode, requires }: AuthMode): string {
  if (requires.length === 0) {
    return `  return { mode: "${mode}" };`;
  }
  const condition = requires.map((option) => `options.${option} !== undefined`).join(" && ");
  const fields = [`mode: "${mode}"`, ...requires.map((option) => `${option}: options.${option}`)];
  return `  if (${condition}) {\n    return { ${fields.join(", ")} };\n  }`;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
