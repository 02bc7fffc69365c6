import type { AnyDesc } from "@bufbuild/protobuf";
import { SpecError } from "./spec-error.js";

/** The role that owns everything in the schema. */
export const ownerRole = "hawser_owner";

/** Every role of Hawser and what it is for. */
export const roles: Readonly<Record<string, string>> = {
  [ownerRole]: "Owns the schema hawser and everything in it.",
  hawser_peer: "What a Peer needs: the catalog, the message store, the cursors.",
  hawser_nats: "May call the SQL functions that reach NATS.",
  hawser_bridge: "The login of hawser serve.",
  hawser_executor: "Runs the wrappers of subscribed functions; reads no secret.",
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

/** @throws SpecError if a word is no privilege on a table, or, with columns, none on columns; or if there is none. */
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
