import type { AnyDesc } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** Role that owns the schema and all of its objects. */
export const ownerRole = "hawser_owner";

/** Roles of Hawser and their purposes. */
export const roles: Readonly<Record<string, string>> = {
  [ownerRole]: "Owns the schema hawser and everything in it.",
  hawser_peer: "Rights of a peer: the catalog, the message store, the cursors.",
  hawser_nats: "May call the SQL functions that reach NATS.",
  hawser_bridge: "The login of hawser serve.",
  hawser_executor: "Runs the wrappers of subscribed functions; reads no secret.",
  hawser_viewer: "Sees counts, names and ages; no payload, header or secret.",
};

const tablePrivileges = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];
const columnPrivileges = ["SELECT", "INSERT", "UPDATE", "REFERENCES"];

/** @throws SpecError if Hawser has no such role. */
export function knownRole(where: AnyDesc, role: string): string {
  if (!(role in roles)) {
    throw new SpecError(where, `unknown role "${role}"; use one of ${Object.keys(roles).join(", ")}`);
  }
  return role;
}

/** @throws SpecError if the list is empty, or a word is not a privilege on tables or, with `onColumns`, on columns */
export function knownPrivileges(where: AnyDesc, role: string, words: string[], onColumns: boolean): string[] {
  const known = onColumns ? columnPrivileges : tablePrivileges;
  if (words.length === 0) {
    throw new SpecError(where, `the grant to ${role} names no privilege; use some of ${known.join(", ")}`);
  }
  for (const word of words) {
    if (!known.includes(word)) {
      const target = onColumns ? "columns" : "tables";
      throw new SpecError(where, `unknown privilege "${word}" on ${target}; use some of ${known.join(", ")}`);
    }
  }
  return words;
}
