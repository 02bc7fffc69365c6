import type { JsonObject } from "./schema-node.js";

/** The options schema as the printers need it: everything checked, nothing left to look up. */
export interface OptionsModel {
  /** The schema's file, relative to the root of the project. */
  readonly file: string;
  /** The schema as the file has it. */
  readonly schema: JsonObject;
  /** The name of the TypeScript type. */
  readonly title: string;
  readonly description: string;
  /** The options, in the order of the schema. */
  readonly options: readonly Option[];
  /** The rules over several options, in the order in which they are reported. */
  readonly rules: readonly Rule[];
  readonly sqlstates: Readonly<Record<SqlstateKind, string>>;
  /** The authentication modes: the first one whose options are all set wins; the last needs none. */
  readonly modes: readonly AuthMode[];
}

/** What a violation is about; each kind has one SQLSTATE. */
export const sqlstateKinds = ["unknown", "value", "missing", "conflict"] as const;
export type SqlstateKind = (typeof sqlstateKinds)[number];

export type Option = StringOption | IntegerOption | BooleanOption;

interface OptionBase {
  readonly name: string;
  readonly description: string;
  /** What to do about a bad value: the violation's hint. */
  readonly remedy: string;
  /** A credential: also allowed in a user mapping. */
  readonly userMapping: boolean;
  /** Its value is a secret. */
  readonly secret: boolean;
  /** Its value is the path of a file. */
  readonly path: boolean;
  /** The connection is made of it: a change makes another connection. */
  readonly connection: boolean;
}

export interface StringOption extends OptionBase {
  readonly type: "string";
  readonly default?: string;
  /** Both in characters (Unicode code points). */
  readonly minLength: number;
  readonly maxLength: number;
  /** A regular expression that JavaScript and Postgres read alike, and what it means, completing "must be". */
  readonly pattern?: { readonly source: string; readonly means: string };
  /** The rules of the proto files that this pattern is one of, by their name. */
  readonly rules?: string;
}

export interface IntegerOption extends OptionBase {
  readonly type: "integer";
  readonly default?: number;
  readonly minimum: number;
  readonly maximum: number;
}

export interface BooleanOption extends OptionBase {
  readonly type: "boolean";
  readonly default?: boolean;
}

/** A rule over several options. */
export interface Rule {
  /** The rule in a few words, for the docs. */
  readonly description: string;
  /** What must hold. */
  readonly holds: Condition;
  /** The options it looks at, in the order of the schema. */
  readonly about: readonly string[];
  /** Checked only when the options of server and user mapping are put together. */
  readonly wholeOnly: boolean;
  readonly violation: {
    /** The option to add or to change. */
    readonly option: string;
    readonly kind: "missing" | "conflict";
    readonly message: string;
    readonly hint: string;
  };
}

/** One way to authenticate. */
export interface AuthMode {
  readonly mode: string;
  /** The options that select it, all of them. */
  readonly requires: readonly string[];
  readonly description: string;
}

/**
 * True if the value must not be shown to anyone: secrets, and also paths and all credentials, because a secret is
 * easily written into the option beside the right one (the seed itself as `nkey_seed_path`).
 */
export function isHidden(option: Option): boolean {
  return option.secret || option.path || option.userMapping;
}

/** What a rule demands of the set of options. */
export type Condition =
  | { readonly kind: "has"; readonly option: string }
  | { readonly kind: "unset-or"; readonly option: string; readonly value: string | number | boolean }
  | { readonly kind: "not"; readonly of: Condition }
  | { readonly kind: "all" | "any"; readonly of: readonly Condition[] };

/** The option is set. */
export function has(option: string): Condition {
  return { kind: "has", option };
}

export function not(of: Condition): Condition {
  return of.kind === "not" ? of.of : { kind: "not", of };
}

export function any(of: readonly Condition[]): Condition {
  return of.length === 1 ? of[0]! : { kind: "any", of };
}

export function all(of: readonly Condition[]): Condition {
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
