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

/** @throws SpecError if Hawser has no such role. */
export function knownRole(where: AnyDesc, role: string): string {
  if (!(role in roles)) {
    throw new SpecError(where, `unknown role "${role}"; use one of ${Object.keys(roles).join(", ")}`);
  }
  return role;
}
