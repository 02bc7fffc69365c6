import { PeerError } from "../errors/index.js";
import type { PeerContext } from "./context.js";
import type { Outgoing } from "./outgoing.js";

/**
 * Stores messages of a channel, numbered from `firstNumber` on.
 *
 * @returns `fenced` if another process has the sender's name; nothing was stored then
 * @throws HawserError `store_failed`; perhaps they were stored all the same
 */
export async function insertMessages(
  { store, lease }: Pick<PeerContext, "store" | "lease">,
  connectionKey: number,
  firstNumber: number,
  messages: readonly Outgoing[],
): Promise<"stored" | "fenced"> {
  if (!lease.isWritable) {
    const message = `the name "${lease.name}" is not surely held; nothing is written until it is`;
    throw new PeerError("store_failed", message);
  }
  const rows = messages.map(({ topicKey, payload, encoding, headers }) => ({
    topicKey,
    payload,
    codec: encoding === undefined ? (0 as const) : (1 as const),
    ...(headers === undefined ? {} : { headers }),
  }));
  return await store.storeMessages(lease, connectionKey, firstNumber, rows);
}
