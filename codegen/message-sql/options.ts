import { maxIdentifierBytes } from "./names.js";

/** Options of the plugin in `buf.gen.yaml`, under `opt`. */
export interface SqlOptions {
  /** Schema of all generated objects. */
  readonly schema: string;
  /** Prefix of the name of each type. */
  readonly prefix: string;
  /** Roles that may call the functions. */
  readonly roles: readonly string[];
  /** Path of the only generated file; undefined for one file per directory of protos. */
  readonly file: string | undefined;
}

/** Invalid option. buf prints the message. */
export class OptionError extends Error {
  override readonly name = "OptionError";
}

/**
 * Reads `schema=shop,role=web,role=worker`.
 *
 * @throws OptionError for an option that is unknown, repeated, or has an invalid value
 */
export function readOptions(parameter: string): SqlOptions {
  const given = new Map<string, string[]>();
  for (const part of parameter.split(",").map((each) => each.trim())) {
    if (part === "") continue;
    const [name, value] = part.includes("=") ? splitAt(part, part.indexOf("=")) : [part, ""];
    if (!known.has(name)) {
      throw new OptionError(`there is no option "${name}"; the options are ${[...known.keys()].join(", ")}`);
    }
    given.set(name, [...(given.get(name) ?? []), value]);
  }
  const one = (name: string, otherwise: string): string => {
    const [value = otherwise, ...others] = given.get(name) ?? [];
    if (others.length > 0) throw new OptionError(`the option ${name} is given twice; give it once`);
    const rule = known.get(name)!;
    if (!rule.pattern.test(value)) throw new OptionError(`the option ${name} is "${value}"; ${rule.advice}`);
    return value;
  };
  const roles = (given.get("role") ?? []).map((role) => {
    if (!identifier.test(role)) throw new OptionError(`the option role is "${role}"; ${identifierAdvice}`);
    return role;
  });
  return {
    schema: one("schema", "messages"),
    prefix: one("prefix", ""),
    roles: [...new Set(roles)],
    file: given.has("file") ? one("file", "") : undefined,
  };
}

const identifier = new RegExp(`^[a-zA-Z_][a-zA-Z0-9_$-]{0,${maxIdentifierBytes - 1}}$`);
const identifierAdvice = `give a name of letters, digits, _ and -, of at most ${maxIdentifierBytes} bytes`;
const known = new Map([
  ["schema", { pattern: identifier, advice: identifierAdvice }],
  ["prefix", { pattern: /^([a-z_][a-z0-9_]{0,30})?$/, advice: "give at most 31 small letters, digits and _" }],
  ["role", { pattern: identifier, advice: identifierAdvice }],
  ["file", { pattern: /^\w[\w.-]*(\/\w[\w.-]*)*\.sql$/, advice: "give a relative path that ends with .sql" }],
]);

function splitAt(text: string, at: number): [string, string] {
  return [text.slice(0, at), text.slice(at + 1)];
}
