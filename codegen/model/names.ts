import type { AnyDesc, DescMessage } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** Postgres truncates longer identifiers without an error. */
const maxIdentifierBytes = 63;

/** Words that Postgres 14 to 18 reject as an unquoted column name: R and T of pg_get_keywords(). */
export const reservedWords: ReadonlySet<string> = new Set(
  (
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation " +
    "column concurrently constraint create cross current_catalog current_date current_role current_schema " +
    "current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch for " +
    "foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral " +
    "leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps " +
    "placing primary references returning right select session_user similar some symmetric system_user table " +
    "tablesample then to trailing true union unique user using variadic verbose when where window with"
  ).split(" "),
);

/** `sender_name` → `senderName`: the rule of protobuf's JSON names, which ts-proto follows too. */
export function camelCase(name: string): string {
  return name.replace(/_+([a-zA-Z0-9])/g, (_, letter: string) => letter.toUpperCase()).replace(/_/g, "");
}

/** `sender_name` → `SenderName`. */
export function pascalCase(name: string): string {
  const camel = camelCase(name);
  return camel.charAt(0).toUpperCase() + camel.slice(1);
}

/** Type name that ts-proto gives a message: `Outer_Inner` for a nested one. */
export function typescriptName(message: DescMessage): string {
  return message.parent === undefined ? message.name : `${typescriptName(message.parent)}_${message.name}`;
}

/** `StoredMessage` → `storedMessage`. */
export function lowerFirst(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}

/**
 * Area of a package, by which its generated files are named: the last part of the package name before the version, such
 * as `peer` for `hawser.peer.v1`.
 */
export function areaOf(packageName: string): string {
  const parts = packageName.split(".").filter((part) => !/^v[0-9]+[a-z0-9]*$/.test(part));
  return parts.at(-1) ?? packageName;
}

/** Last part of a proto file's path, without its suffix: `frames` for `hawser/peer/v1/frames.proto`. */
export function baseNameOf(protoPath: string): string {
  return protoPath.slice(protoPath.lastIndexOf("/") + 1).replace(/\.proto$/, "");
}

/**
 * Checks a name that is written into SQL without quotes, and returns it.
 *
 * @throws SpecError if the name is not lower_snake_case, is longer than 63 bytes, or is a reserved word.
 */
export function sqlIdentifier(where: AnyDesc, what: string, name: string): string {
  if (!/^[a-z_][a-z0-9_]*$/.test(name)) {
    throw new SpecError(where, `${what} "${name}" is not a lower_snake_case name`);
  }
  if (name.length > maxIdentifierBytes) {
    throw new SpecError(
      where,
      `${what} "${name}" has ${name.length} bytes, Postgres takes ${maxIdentifierBytes}; shorten it`,
    );
  }
  if (reservedWords.has(name)) {
    throw new SpecError(where, `${what} "${name}" is a reserved word of SQL; choose another name`);
  }
  return name;
}
