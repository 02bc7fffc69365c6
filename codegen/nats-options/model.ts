import type { JsonObject } from "./schema-node.js";

/** Options schema in the form that the printers use: checked, with all references resolved. */
export interface OptionsModel {
  /** Path of the schema's file, relative to the root of the project. */
  readonly file: string;
  /** Schema as written in the file. */
  readonly schema: JsonObject;
  /** Name of the TypeScript type. */
  readonly title: string;
  readonly description: string;
  /** Options, in the order of the schema. */
  readonly options: readonly Option[];
  /** Rules over several options, in the order in which they are reported. */
  readonly rules: readonly Rule[];
  readonly sqlstates: Readonly<Record<SqlstateKind, string>>;
  /** Authentication modes: the first mode whose options are all set is used; the last requires none. */
  readonly modes: readonly AuthMode[];
}

/** Kinds of violations; each has one SQLSTATE. */
export const sqlstateKinds = ["unknown", "value", "missing", "conflict"] as const;
export type SqlstateKind = (typeof sqlstateKinds)[number];

export type Option = StringOption | IntegerOption | BooleanOption;

interface OptionBase {
  readonly name: string;
  readonly description: string;
  /** Remedy for an invalid value: the violation's hint. */
  readonly remedy: string;
  /** True for a credential, which is also allowed in a user mapping. */
  readonly userMapping: boolean;
  /** True if the value is a secret. */
  readonly secret: boolean;
  /** True if the value is the path of a file. */
  readonly path: boolean;
  /** True if a change of the option requires a new connection. */
  readonly connection: boolean;
}

export interface StringOption extends OptionBase {
  readonly type: "string";
  readonly default?: string;
  /** Lengths in characters (Unicode code points). */
  readonly minLength: number;
  readonly maxLength: number;
  /** Regular expression that JavaScript and Postgres interpret alike, and its meaning, which completes "must be". */
  readonly pattern?: { readonly source: string; readonly means: string };
  /** Name of the named rules in the proto files that have this pattern. */
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

/** Rule over several options. */
export interface Rule {
  /** Rule in a few words, for the docs. */
  readonly description: string;
  /** Condition that the options must fulfil. */
  readonly holds: Condition;
  /** Options that the rule reads, in the order of the schema. */
  readonly about: readonly string[];
  /** True if the rule applies only to the combined options of server and user mapping. */
  readonly wholeOnly: boolean;
  readonly violation: {
    /** Option to add or to change. */
    readonly option: string;
    readonly kind: "missing" | "conflict";
    readonly message: string;
    readonly hint: string;
  };
}

/** Authentication mode. */
export interface AuthMode {
  readonly mode: string;
  /** Options that select the mode, if all are set. */
  readonly requires: readonly string[];
  readonly description: string;
}

/**
 * True if the value must never be shown: for secrets, and for paths and all credentials, because users easily write a
 * secret into the neighbouring option (the seed itself as `nkey_seed_path`).
 */
export function isHidden(option: Option): boolean {
  return option.secret || option.path || option.userMapping;
}

/** Condition of a rule on the set of options. */
export type Condition =
  | { readonly kind: "has"; readonly option: string }
  | { readonly kind: "unset-or"; readonly option: string; readonly value: string | number | boolean }
  | { readonly kind: "not"; readonly of: Condition }
  | { readonly kind: "all" | "any"; readonly of: readonly Condition[] };

/** Condition that the option is set. */
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

/** Negates a condition, with `not` pushed down to single options, so that the SQL is easy to read. */
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

/** Options that a condition reads. */
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
