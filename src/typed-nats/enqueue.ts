/**
 * Typed messages to NATS in a transaction, by the SQL functions of the outbox.
 */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { natsFunctions } from "../../generated/ts/nats-functions/client.js";
import { namesOf, TypedError } from "../errors/index.js";
import { postgresErrorOf, rowsOf, type SqlClient } from "../postgres/index.js";
import {
  contentTypeHeader,
  contentTypeOf,
  encode,
  type Format,
  idOfMessage,
  keyOfMessage,
  subjectOf,
} from "../typed/index.js";
import { checkOptionNames, knownTopicOf } from "./publish.js";

/** How a typed message is enqueued. */
export interface EnqueueOptions {
  /** Default `binary`: that of Protobuf. */
  readonly format?: Format | undefined;
  /** Further headers, by their names. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
  /** Messages with the same subject and key are published in the order of their commits. Default: the option's field. */
  readonly key?: string | undefined;
  /** With `stream: true`: of two messages with one id the stream keeps one. Default: the type and the option's field. */
  readonly messageId?: string | undefined;
  /** The message is published then, or later. */
  readonly deliverAt?: Date | undefined;
  /** With `stream: true`: the JetStream domain. */
  readonly domain?: string | undefined;
  /** The schema that the SQL functions are in. Default `public`. */
  readonly schema?: string | undefined;
}

const names = namesOf<EnqueueOptions>({
  format: true,
  headers: true,
  key: true,
  messageId: true,
  deliverAt: true,
  domain: true,
  schema: true,
});

/**
 * Enqueues a typed message for NATS, in the transaction that the client is in: it is published if, and only if, that
 * commits. A client outside of a transaction commits at once, as with every statement: begin one first. With `stream: true`
 * in the schema's option, it is published until a stream has it.
 *
 * @returns the number of the message in the outbox
 * @throws HawserError (as a rejection) `invalid_argument` naming the field, its value and the rule; `invalid_schema`;
 * `schema_missing` if the database has no `nats_enqueue_…` in the schema; the error of Postgres
 */
export async function enqueue<Desc extends DescMessage>(
  client: SqlClient,
  schema: Desc,
  message: MessageInitShape<Desc>,
  options: EnqueueOptions = {},
): Promise<bigint> {
  checkOptionNames(options, "enqueue", names);
  const { format = "binary", headers = {}, key, messageId, deliverAt, domain } = options;
  const topic = knownTopicOf(schema);
  const payload = encode(schema, message, format);
  const functions = natsFunctions(
    { query: async (text, values) => ({ rows: await queried(client, text, values, options.schema ?? "public") }) },
    { schema: options.schema },
  );
  const common = {
    subject: subjectOf(topic, message),
    payload,
    headers: { [contentTypeHeader]: contentTypeOf(schema, format), ...headers },
    key: key ?? keyOfMessage(topic, message),
    deliverAt,
  };
  if (topic.stream) {
    return await functions.enqueueBinaryStream({
      ...common,
      messageId: messageId ?? idOfMessage(topic, message),
      domain,
    });
  }
  if (messageId !== undefined) {
    const text = `${schema.typeName}: messageId needs stream: true in its option; core NATS has no ids`;
    throw new TypedError("invalid_argument", text);
  }
  return await functions.enqueueBinary(common);
}

/** SQLSTATE of a function, and of a schema, that is not there. */
const notThere = new Set<unknown>(["42883", "3F000"]);

async function queried(
  client: SqlClient,
  text: string,
  values: unknown[],
  schema: string,
): Promise<Record<string, unknown>[]> {
  try {
    return rowsOf(await client.query(text, values));
  } catch (error) {
    const { code, message = "" } = postgresErrorOf(error);
    if (!notThere.has(code)) throw error;
    const why = `the schema "${schema}" has no function nats_enqueue_… that takes these arguments: ${message}`;
    const remedy =
      "run hawser init on this database, or name the schema that the functions are in as the option schema";
    throw new TypedError("schema_missing", `${why}; ${remedy}`, { cause: error });
  }
}
