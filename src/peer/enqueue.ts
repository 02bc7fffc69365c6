/**
 * Messages that are written in a transaction of the user: they exist if, and only if, that commits. Whichever process relays
 * the outbox hands them over to peers, or publishes them to NATS, then.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { enqueueFunctions, outboxFunctions, peerOutboxFunctions } from "../../generated/ts/rows/outbox.js";
import { HawserError } from "../errors/index.js";
import { postgresErrorOf, rowsOf, type SqlClient } from "../postgres/index.js";
import { type Addressed, address, checkDeliverAt } from "./destination.js";
import type { EnqueueBatchOptions, EnqueueOptions, NatsSubject, Payload } from "./message.js";
import { checkKnownOptions } from "./options.js";

/**
 * Enqueues a message, in the transaction that the client is in: for one of the listeners of a topic, for a subject of NATS, or
 * for where the option of a schema says. A client that is in no transaction commits at once.
 *
 * @param payload text becomes UTF-8; an object that is no `Uint8Array` travels as JSON, with the header `content-type`. For a
 * topic at least one byte, for all at most 64 MiB
 * @returns the number of the message in the outbox
 * @throws HawserError (as a rejection) `invalid_argument`, `internal_topic`, `invalid_schema`, before anything is sent to
 * Postgres; `schema_missing` if the database has no outbox; the error of Postgres
 */
export function enqueue(
  client: SqlClient,
  to: string | NatsSubject,
  payload: Payload,
  options?: EnqueueOptions,
): Promise<bigint>;
/** Enqueues a typed message; the fields that the schema's option names give its key and id, unless the options do. */
export function enqueue<Desc extends DescMessage>(
  client: SqlClient,
  to: Desc,
  message: MessageInitShape<Desc>,
  options?: EnqueueOptions,
): Promise<bigint>;
export function enqueue(
  client: SqlClient,
  to: string | NatsSubject | DescMessage,
  payload: unknown,
  options: EnqueueOptions = {},
): Promise<bigint> {
  return enqueueFrom(null, client, to, payload, options);
}

/** Enqueues as {@link enqueue} does. @param origin the peer that does so, as `name:topic`, which gets replies; null: none */
export async function enqueueFrom(
  origin: string | null,
  client: SqlClient,
  to: string | NatsSubject | DescMessage,
  payload: unknown,
  options: EnqueueOptions = {},
): Promise<bigint> {
  checkKnownOptions(options, "an enqueue");
  return await write(client, address(to, payload, options), options, origin);
}

/**
 * Enqueues several messages for one destination, in order, with one statement.
 *
 * @param payloads as of {@link enqueue}; at most 1,000,000, and 128 MiB in all
 * @returns the numbers of the messages in the outbox, in the order of the payloads
 * @throws HawserError as {@link enqueue}
 */
export function enqueueBatch(
  client: SqlClient,
  to: string | NatsSubject,
  payloads: readonly Payload[],
  options?: EnqueueBatchOptions,
): Promise<bigint[]>;
/** Enqueues typed messages of one type. Where their subjects, keys or ids differ, each has a statement of its own. */
export function enqueueBatch<Desc extends DescMessage>(
  client: SqlClient,
  to: Desc,
  messages: readonly MessageInitShape<Desc>[],
  options?: EnqueueBatchOptions,
): Promise<bigint[]>;
export async function enqueueBatch(
  client: SqlClient,
  to: string | NatsSubject | DescMessage,
  payloads: readonly unknown[],
  options: EnqueueBatchOptions = {},
): Promise<bigint[]> {
  checkKnownOptions(options, "a batch to enqueue");
  if (!Array.isArray(payloads)) {
    throw new HawserError(
      "invalid_argument",
      `payloads of type ${typeof payloads}: must be an array, with one for each message`,
    );
  }
  const now = Date.now();
  const messages = payloads.map((payload) => address(to, payload, options, now));
  const [first] = messages;
  if (first === undefined) return [];
  const bytes = messages.map((message) => message.payload);
  const place = placeOf(first);
  if (messages.every((message) => message.messageId === null && placeOf(message) === place)) {
    const { destination, headers, key } = first;
    const common = { headers, key, payloads: bytes, deliverAt: checkDeliverAt(options) };
    const functions = enqueueFunctions(callerOf(client));
    const written =
      destination.sink === "peers"
        ? functions.enqueueBatch({ ...common, topic: destination.topic, toAll: options.all || null })
        : functions.enqueueSubjectBatch({ ...common, ...destination });
    return (await written).ids;
  }
  const ids: bigint[] = [];
  for (const message of messages) ids.push(await write(client, message, options, null));
  return ids;
}

/** Arguments that all messages of a batch share, as a text to compare. */
function placeOf({ destination, headers, key }: Addressed): string {
  return JSON.stringify([destination, headers, key]);
}

/**
 * Takes back a message that is due later, in the transaction that the client is in.
 *
 * @param id the number that {@link enqueue} has returned
 * @returns whether the message was still there: false if it was due or cancelled, is not known, or belongs to a database role
 * that the client's is no member of
 * @throws HawserError (as a rejection) `schema_missing` if the database has no outbox; the error of Postgres
 */
export async function cancel(client: SqlClient, id: bigint): Promise<boolean> {
  return (await outboxFunctions(callerOf(client)).cancel({ id })).cancelled;
}

/** Enqueues a reply for one listener of a topic. @throws HawserError as {@link enqueue} */
export async function enqueueReply(
  client: SqlClient,
  { listener, topic, origin }: { readonly listener: string; readonly topic: string; readonly origin: string },
  payload: Payload,
  options: EnqueueOptions = {},
): Promise<bigint> {
  return await write(client, address(topic, payload, options), options, origin, listener);
}

/** @param listener the one that it is for; null: those that serve the topic */
async function write(
  client: SqlClient,
  { destination, ...message }: Addressed,
  options: EnqueueOptions,
  origin: string | null,
  listener: string | null = null,
): Promise<bigint> {
  const deliverAt = checkDeliverAt(options);
  if (destination.sink === "nats") {
    return (await enqueueFunctions(callerOf(client)).enqueueSubject({ ...message, ...destination, deliverAt })).id;
  }
  const { topic } = destination;
  const toAll = options.all || null;
  if (origin === null) {
    return (await enqueueFunctions(callerOf(client)).enqueue({ ...message, topic, deliverAt, toAll })).id;
  }
  const { payload, ...marks } = message;
  const asPeer = { topic, payloads: [payload], listener, deliverAt, toAll, origin };
  return (await peerOutboxFunctions(callerOf(client)).enqueuePeer({ ...marks, ...asPeer })).ids[0]!;
}

/** SQLSTATE of a function, and of a schema, that is not there. */
const notThere = new Set(["42883", "3F000"]);

/** Calls functions of the schema `hawser` with a client of the user's. */
export function callerOf(client: SqlClient) {
  return {
    async query({ text, values }: { text: string; values: unknown[] }): Promise<{ rows: Record<string, unknown>[] }> {
      if (typeof (client as Partial<SqlClient> | null | undefined)?.query !== "function") {
        const text = `the client is ${client === null ? "null" : `of type ${typeof client}`}, and has no method query(text, values)`;
        const remedy =
          "give a client of node-postgres, or make one with fromDrizzle, fromKysely, fromKnex or fromPrisma";
        throw new HawserError("invalid_argument", `${text}; ${remedy}`);
      }
      try {
        return { rows: rowsOf(await client.query(text, values)) };
      } catch (error) {
        const { code, message } = postgresErrorOf(error);
        if (!notThere.has(String(code))) throw error;
        const why = `the database has no outbox that takes this: ${message}`;
        const remedy = "run hawser init on it, or start a peer there once";
        throw new HawserError("schema_missing", `${why}; ${remedy}`, { cause: error });
      }
    },
  };
}
