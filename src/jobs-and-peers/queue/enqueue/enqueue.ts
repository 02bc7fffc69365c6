/**
 * Enqueue: writes messages in a transaction of the user, so that they exist if and only if it commits. After the
 * commit a worker takes those for topics from the queue, and the relay of `hawser serve` publishes those for NATS from the outbox.
 */
import { enqueueSubjectFunctions } from "../../../../generated/ts/rows/outbox.js";
import {
  cancelFunctions,
  enqueueFunctions,
  enqueuerFunctions,
  type ResultColumns,
} from "../../../../generated/ts/rows/queue.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { inSpan, type Operation, startSpan, tracer } from "../../../foundation/runtime/index.js";
import { postgresErrorOf, queryText, type SqlClient } from "../../../foundation/sql-clients/index.js";
import { loadingFor } from "../protobuf.js";
import { headerPairsOf, type Payload, withContext } from "./content.js";
import { type Addressed, address, checkedId, jsonOf } from "./destination.js";
import { checkKnownOptions, type EnqueueBatchOptions, type EnqueueOptions } from "./enqueue-options.js";
import type { Destination, NatsSubject, PayloadFor } from "./topic-types.js";

/**
 * Enqueues a message in the current transaction of the client. Without a transaction the message is committed at once.
 * Await the promise before the transaction ends: with the first schema of Protobuf, a process loads its codec before the statement.
 *
 * @param to a topic, whose message goes to one listener; a topic with its schema, which checks the message; a NATS
 * subject; or a schema that protoc-gen-es generated. Its option names the topic or subject, and the fields that provide
 * the key and the id, unless `options` has them
 * @param payload at most 64 MiB; at least one byte for a topic. A string is encoded as UTF-8; an object other than
 * `Uint8Array` is encoded as JSON, with the header `content-type`. With a schema: the message
 * @returns id of the message; with `uniqueKey`, of the one that waits
 * @throws HawserError (as a rejection) `invalid_argument`, `internal_topic`, `invalid_schema`, all before a statement
 * is sent to Postgres; `schema_missing` if the database lacks the schema of Hawser, or has an older one; errors of Postgres
 */
export function enqueue<To extends Destination | NatsSubject, Given>(
  client: SqlClient,
  to: To,
  payload: PayloadFor<To, Given>,
  options?: EnqueueOptions,
): Promise<bigint> {
  return enqueueFrom(null, client, to, payload, options);
}

/**
 * Enqueues a message as {@link enqueue}. @param origin enqueuing peer as `name:topic`, which receives replies; null for
 * no peer
 */
export async function enqueueFrom(
  origin: string | null,
  client: SqlClient,
  to: Destination | NatsSubject,
  payload: unknown,
  options: EnqueueOptions = {},
): Promise<bigint> {
  checkKnownOptions(options, "an enqueue");
  const loading = loadingFor(to);
  if (loading !== undefined) await loading;
  return await write(client, address(to, payload, options), options, origin);
}

/**
 * Enqueues several messages for one destination, in order, with one SQL statement. Messages of Protobuf whose subjects,
 * keys or ids differ are each written by a statement of their own.
 *
 * @param payloads payloads as for {@link enqueue}; at most 1,000,000, and 128 MiB in total
 * @returns ids of the messages, in the order of the payloads
 * @throws HawserError as {@link enqueue}
 */
export async function enqueueBatch<To extends Destination | NatsSubject, Given>(
  client: SqlClient,
  to: To,
  payloads: readonly PayloadFor<To, Given>[],
  options: EnqueueBatchOptions = {},
): Promise<bigint[]> {
  checkKnownOptions(options, "a batch to enqueue");
  if (!Array.isArray(payloads)) {
    throw new HawserError(
      "invalid_argument",
      `payloads of type ${typeof payloads}: must be an array with one payload for each message`,
    );
  }
  const loading = loadingFor(to);
  if (loading !== undefined) await loading;
  const now = Date.now();
  const messages = payloads.map((payload, index) => {
    try {
      return address(to, payload, options, now);
    } catch (error) {
      throw ofPayload(error, index);
    }
  });
  const [first] = messages;
  if (first === undefined) return [];
  const bytes = messages.map((message) => message.payload);
  const shared = commonArguments(first);
  if (messages.every((message) => message.messageId === null && commonArguments(message) === shared)) {
    const { destination, key, priority, deliverAt, keepMs } = first;
    const common = { key, payloads: bytes, deliverAt };
    const caller = keeping(callerOf(client), keepMs, destination);
    const written = await traced(first, messages.length, ({ headers }) =>
      destination.sink === "peers"
        ? enqueueFunctions(caller).enqueueBatch({
            ...{ ...common, headers, priority, topic: destination.topic, toAll: options.all || null },
            ...inHeaders,
          })
        : enqueueSubjectFunctions(caller).enqueueSubjectBatch({ ...common, headers, ...destination }),
    );
    return written.ids;
  }
  const ids: bigint[] = [];
  for (const message of messages) ids.push(await write(client, message, options, null));
  return ids;
}

/** Error that names the payload of a batch. What is wrong with an option is wrong with the first payload already. */
function ofPayload(error: unknown, index: number): unknown {
  if (!(error instanceof HawserError) || (index === 0 && !/^payload\b/.test(error.message))) return error;
  return new HawserError(error.code, `payloads[${index}]: ${error.message}`, { cause: error });
}

/** Arguments that all messages of a batch share, as a string to compare. */
function commonArguments({ destination, headers, key }: Addressed): string {
  return JSON.stringify([destination, headers, key]);
}

/**
 * Outcome of {@link cancel}, if the transaction commits.
 * - `cancelled`: nobody gets the message.
 * - `cancelling`: a peer has the message, or the relay may have read it for NATS. A peer that has not begun it does not. Otherwise
 *   `message.signal` is aborted, what the handler did in its transaction is rolled back, and it is not called again.
 * - `not_waiting`: there is no such message. It was handled, published or cancelled, is a dead letter, or belongs to a database
 *   role that the client's role is not a member of.
 */
export type CancelOutcome = "cancelled" | "cancelling" | "not_waiting";

/**
 * Cancels a message in the current transaction of the client.
 *
 * @param id id that {@link enqueue} returned, or its digits. A message for NATS with `deliverAt` or `delayMs` has it until it is due
 * @throws HawserError (as a rejection) `invalid_argument`; `schema_missing` if the database lacks the schema of Hawser, or has an older one; errors of Postgres
 */
export async function cancel(client: SqlClient, id: bigint | string): Promise<CancelOutcome> {
  return (await cancelFunctions(callerOf(client)).cancel({ id: checkedId("id", id) })).state as CancelOutcome;
}

/** Message of a flow that {@link cancelFlow} has cancelled, if the transaction commits. */
export interface CancelledJob {
  readonly id: bigint;
  readonly outcome: Exclude<CancelOutcome, "not_waiting">;
}

/**
 * Cancels a flow as a whole in the current transaction of the client: a message, those that come after it, those that it comes after,
 * and so on, at most 10,000.
 *
 * @param id id of a message of the flow, also of one that has ended
 * @returns the messages that it has cancelled, in the order of their ids; none for those that have ended, and for dead letters
 * @throws HawserError (as a rejection) `invalid_argument`; `schema_missing` if the database lacks the schema of Hawser, or has an older one; errors of Postgres
 */
export async function cancelFlow(client: SqlClient, id: bigint | string): Promise<CancelledJob[]> {
  const rows = await cancelFunctions(callerOf(client)).cancelFlow({ ofId: checkedId("id", id) });
  return rows.map(({ id, state }) => ({ id, outcome: state as CancelledJob["outcome"] }));
}

/** Enqueues a reply for one listener of a topic. @param origin sender of the reply; null for a worker @throws HawserError as {@link enqueue} */
export async function enqueueReply(
  client: SqlClient,
  { listener, topic, origin }: { readonly listener: string; readonly topic: string; readonly origin: string | null },
  payload: Payload,
  options: EnqueueOptions = {},
): Promise<bigint> {
  return await write(client, address(topic, payload, options), options, origin, listener);
}

/**
 * Writes a message in a span, if one is active; without one, the transaction may have a context of its own.
 *
 * @param statement writes the message with the context in its headers
 */
function traced<T>(message: Addressed, count: number, statement: (message: Addressed) => Promise<T>): Promise<T> {
  if (tracer === undefined) return statement(message);
  const { destination, payload, messageId } = message;
  const isPeers = destination.sink === "peers";
  const isOne = count === 1;
  const operation: Operation = {
    kind: "enqueue",
    system: isPeers ? "hawser" : "nats",
    destination: isPeers ? destination.topic : destination.subject,
    count: isOne ? undefined : count,
    messageId: isOne && !isPeers ? (messageId ?? undefined) : undefined,
    bytes: isOne ? payload.length : undefined,
  };
  const span = startSpan(operation, "never");
  if (span === undefined) return statement(message);
  const headers = headerPairsOf(message.headers === null ? undefined : JSON.parse(message.headers));
  return inSpan(span, async () => {
    const written = await statement({ ...message, headers: jsonOf(withContext(headers, span.context)) });
    if (isPeers && typeof written === "bigint") span.setMessageId(String(written));
    return written;
  });
}

/** Arguments that the headers of an {@link Addressed} message have already. */
const inHeaders = { attempts: null };

/** @param listener name of the only listener that gets the message; null for any listener of the topic */
function write(
  client: SqlClient,
  addressed: Addressed,
  options: EnqueueOptions,
  origin: string | null,
  listener: string | null = null,
): Promise<bigint> {
  return traced(addressed, 1, async ({ destination, priority, unique, flow, keepMs, ...message }) => {
    const caller = keeping(callerOf(client), keepMs, destination);
    if (destination.sink === "nats")
      return (await enqueueSubjectFunctions(caller).enqueueSubject({ ...message, ...destination })).id;
    const { topic } = destination;
    if (unique !== null) {
      const { key: _, ...content } = message;
      const given = { topic, ...content, ...unique, priority };
      if (origin === null) return (await enqueueFunctions(caller).enqueueUnique({ ...given, ...inHeaders })).id;
      return (await enqueuerFunctions(caller).enqueueUniquePeer({ ...given, origin })).id;
    }
    const toAll = options.all || null;
    if (flow !== null) {
      const given = { topic, ...message, ...flow, toAll, priority };
      if (origin === null) return (await enqueueFunctions(caller).enqueueAfter({ ...given, ...inHeaders })).id;
      return (await enqueuerFunctions(caller).enqueueAfterPeer({ ...given, origin })).id;
    }
    if (origin === null && listener === null)
      return (await enqueueFunctions(caller).enqueue({ ...message, topic, toAll, priority, ...inHeaders })).id;
    const { payload, ...marks } = message;
    const asPeer = { topic, payloads: [payload], listener, toAll, origin, priority };
    return (await enqueuerFunctions(caller).enqueuePeer({ ...marks, ...asPeer })).ids[0]!;
  });
}

/**
 * Has the results kept of what a statement enqueues, by the same one: without a transaction another one would come too late.
 *
 * @param keepMs null if nothing is kept, as for NATS
 */
function keeping(
  caller: ReturnType<typeof callerOf>,
  keepMs: number | null,
  destination: Addressed["destination"],
): ReturnType<typeof callerOf> {
  if (keepMs === null || destination.sink === "nats") return caller;
  return {
    query({ text, values, results }) {
      const ids = /^SELECT ids\b/.test(text) ? "e.ids" : "ARRAY[e.id]";
      const keep = `hawser.keep_result(k.id, $${values.length + 1}::integer)`;
      return caller.query({
        text: `SELECT e.*, ARRAY(SELECT ${keep} FROM unnest(${ids}) AS k (id)) AS kept FROM (${text}) AS e`,
        values: [...values, keepMs],
        // Without it, the statement would not be required to keep them.
        results: { ...results, kept: "string[]" },
      });
    },
  };
}

/** SQLSTATEs for a missing function and a missing schema. */
const missingObjectStates = new Set(["42883", "3F000"]);

/** Statement of a generated caller. */
interface CalledStatement {
  readonly text: string;
  readonly values: unknown[];
  readonly results: ResultColumns;
}

/** Adapts the client of the user to the generated callers of the `hawser` SQL functions. */
export function callerOf(client: SqlClient) {
  return {
    async query({ text, values, results }: CalledStatement): Promise<{ rows: Record<string, unknown>[] }> {
      if (typeof (client as Partial<SqlClient> | null | undefined)?.query !== "function") {
        const text = `the client is ${client === null ? "null" : `of type ${typeof client}`} and has no method query(text, values)`;
        const remedy =
          "give a client of node-postgres, or make one with fromDrizzle, fromKysely, fromKnex or fromPrisma";
        throw new HawserError("invalid_argument", `${text}; ${remedy}`);
      }
      try {
        return { rows: await queryText(client, text, values, results) };
      } catch (error) {
        const { code, message } = postgresErrorOf(error);
        if (!missingObjectStates.has(String(code))) throw error;
        const why = `the database lacks the schema of Hawser, or has an older one: ${message}`;
        const remedy = "run hawser init on it, or start a peer there once";
        throw new HawserError("schema_missing", `${why}; ${remedy}`, { cause: error });
      }
    },
  };
}
