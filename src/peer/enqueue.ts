/**
 * Messages for peers that are written in a transaction of the user: they exist if, and only if, that commits. Whichever
 * process relays the outbox stores them for their listeners then.
 */
import { namedRules } from "../../generated/ts/rules/named.js";
import { checkBytes as checkBytesRule } from "../../generated/ts/rules/violation.js";
import type { Headers } from "../channel/index.js";
import { PeerError } from "../errors/index.js";
import { rowsOf, type SqlClient } from "../postgres/index.js";
import { bytesOf, type EnqueuedReceipt, type EnqueueOptions, type MessageToEnqueue } from "./message.js";
import { checkHeaders, checkKnownOptions, checkMarks, checkNotReserved, checkTopic, expiresHeader } from "./options.js";

const sql = {
  forTopic:
    "SELECT hawser.peer_enqueue_binary($1::text, $2::bytea, $3::text::jsonb, $4::text, $5::text, $6::timestamptz) AS id",
  forListener:
    "SELECT id FROM hawser.enqueue_peer($1::text, ARRAY[$2::bytea], $3::text::jsonb, $4::text, $5::text, $7::text, $6::timestamptz)",
} as const;

/**
 * Enqueues a message for one of the listeners of a topic, in the transaction that the client is in. Outside of one, it is
 * committed at once: begin a transaction first.
 *
 * @throws PeerError `invalid_argument`, `internal_topic`, before anything is sent to Postgres; the error of Postgres
 */
export async function enqueue(client: SqlClient, message: MessageToEnqueue): Promise<EnqueuedReceipt> {
  checkKnownOptions(message, "a message to enqueue");
  const { topic, payload, ...options } = message;
  return await write(client, sql.forTopic, topic, payload, options, []);
}

/** Enqueues a message for one listener of a topic: a reply. @throws as {@link enqueue} */
export async function enqueueFor(
  client: SqlClient,
  listener: string,
  { topic, payload, ...options }: MessageToEnqueue,
): Promise<EnqueuedReceipt> {
  return await write(client, sql.forListener, topic, payload, options, [listener]);
}

async function write(
  client: SqlClient,
  text: string,
  topic: string,
  payload: Uint8Array | string,
  { headers, key, messageId, deliverAt, ttlMs }: EnqueueOptions,
  more: readonly unknown[],
): Promise<EnqueuedReceipt> {
  checkTopic(topic);
  checkNotReserved(topic);
  const bytes = checkPayload(payload);
  const long = checkBytesRule("payload", namedRules.peerPayload, bytes);
  if (long !== undefined)
    throw new PeerError("invalid_argument", `${long.path} ${long.value}: ${long.rule}. ${long.remedy}`);
  const given = headers && checkHeaders(headers);
  checkMarks({ key, messageId, ttlMs });
  if (deliverAt !== undefined && !(deliverAt instanceof Date && Number.isFinite(deliverAt.getTime())))
    throw new PeerError("invalid_argument", `deliverAt ${String(deliverAt)}: must be a valid Date`);
  const dueAt = Math.max(Date.now(), deliverAt?.getTime() ?? 0);
  const pairs = ttlMs === undefined ? given : [...(given ?? []), expiresHeader(ttlMs, dueAt)];
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [row] = rowsOf(
    await client.query(text, [
      topic,
      buffer,
      pairs === undefined ? null : JSON.stringify(valuesByName(pairs)),
      key ?? null,
      messageId ?? null,
      deliverAt?.toISOString() ?? null,
      ...more,
    ]),
  );
  return { outcome: "enqueued", id: BigInt(row!["id"] as string) };
}

/** The bytes of a payload. @throws PeerError `invalid_argument` */
export function checkPayload(payload: Uint8Array | string): Uint8Array {
  const bytes = checkBytes(payload, " of at least one byte");
  if (bytes.length > 0) return bytes;
  throw new PeerError("invalid_argument", "payload 0 bytes: must be a Uint8Array or a string of at least one byte");
}

/** The bytes of a payload that may be empty. @throws PeerError `invalid_argument` */
export function checkBytes(payload: Uint8Array | string, which = ""): Uint8Array {
  const bytes = bytesOf(payload);
  if (bytes instanceof Uint8Array) return bytes;
  const given = `a value of type ${typeof bytes}`;
  throw new PeerError("invalid_argument", `payload ${given}: must be a Uint8Array or a string${which}`);
}

function valuesByName(pairs: Headers): Record<string, string[]> {
  const values = new Map<string, string[]>();
  for (const [name, value] of pairs) values.set(name, [...(values.get(name) ?? []), value]);
  return Object.fromEntries(values);
}
