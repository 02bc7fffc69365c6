/**
 * The names by which a responder is known in NATS. Pure.
 */
import { createHash } from "node:crypto";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";

/**
 * The service's name: that of its function with its schema, without arguments, and with `_` for what a name of a service
 * may not have. `public.answer(bytea)` → `public_answer`. Two functions may have one name; ids tell them apart.
 */
export function serviceName(functionName: string): string {
  const end = functionName.lastIndexOf("(");
  const path = end === -1 ? functionName : functionName.slice(0, end);
  const name = path.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^_+|_+$/g, "");
  return name.slice(0, bridgeConstants.maxServiceNameLength) || "responder";
}

/**
 * The queue group, the same in every process that answers for the database, so that a request is answered by one of
 * them; another one for another database, whose function of the same subject is another service and must not get half of
 * the requests.
 */
export function queueGroup(database: string, subject: string): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([database, subject]))
    .digest("hex");
  return `hawser_${hash.slice(0, 24)}`;
}
