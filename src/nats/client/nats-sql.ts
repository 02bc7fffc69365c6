/**
 * `natsSql`: the SQL functions that reach NATS, as methods. A generated table maps each method to its function; the
 * type of a payload selects the variant for `text`, `json` or `binary`.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { errorTable } from "../../../generated/ts/errors/errors.js";
import {
  type NatsSql,
  natsSqlMethods,
  type SqlMethod,
  type SqlParameter,
  type SqlResult,
} from "../../../generated/ts/nats-functions/client.js";
import type { ResultColumns } from "../../../generated/ts/rows/nats.js";
import {
  checkOptionNames,
  type ErrorCode,
  HawserError,
  invalidArgument,
  namesOf,
} from "../../foundation/errors/index.js";
import {
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  formOf,
  isSchema,
  jsonContentType,
  type PayloadForm,
  ReceivedContent,
} from "../../foundation/payloads/index.js";
import { postgresErrorOf, queryText, type SqlClient } from "../../foundation/sql-clients/index.js";
import { encode, idOfMessage, subjectOf, topicOf } from "../../protobuf/typed/index.js";
import { messageIdHeader } from "./publish.js";

/** Options of {@link natsSql}. */
interface NatsSqlOptions {
  /** Schema that the functions were installed in. Default `public`. */
  readonly schema?: string | undefined;
}

/**
 * The SQL functions that reach NATS, as methods. A call is one statement in the client's current transaction; a batch
 * has one statement for each run of messages with the same subject and headers.
 *
 * The methods reject with a `HawserError` whose `cause` is the error of the client. For an error that the function
 * raises, `code` follows from the SQLSTATE, `message` and `detail` are those of the error, and `remedy` is its HINT. An
 * error of Postgres itself (no such function, no right to call it, a cancelled statement) and a lost connection are
 * `store_failed`. `outcome` is `unknown` if the call may have taken effect.
 *
 * @param client a Pool or Client of node-postgres, or a client of `fromDrizzle` and the like
 * @throws HawserError `invalid_argument` for a client without `query`, and for an unknown option
 */
export function natsSql(client: SqlClient, options: NatsSqlOptions = {}): NatsSql {
  if (typeof (client as Partial<SqlClient> | null | undefined)?.query !== "function") {
    const shown = client === null ? "null" : typeof client;
    throw invalidArgument(
      `the client of natsSql is ${shown} and must have a method query; give a Client or Pool of node-postgres`,
    );
  }
  checkOptionNames(options, "natsSql", namesOf<NatsSqlOptions>({ schema: true }));
  return sqlMethods(natsSqlMethods, client, options.schema) as unknown as NatsSql;
}

/** Values of parameters and options by their names in the client. */
type Values = Readonly<Record<string, unknown>>;

/** Replacements of methods if the option of the schema has `stream: true`. */
const toStream: Readonly<Record<string, string>> = {
  publish: "publishToStream",
  publishBatch: "publishBatchToStream",
};

/** Creates the methods of a table. */
function sqlMethods<Name extends string>(
  table: Readonly<Record<Name, SqlMethod>>,
  client: SqlClient,
  schema = "public",
): Record<Name, (...given: unknown[]) => Promise<unknown>> {
  const quotedSchema = `"${schema.replaceAll('"', '""')}"`;
  const call = async (method: SqlMethod, kind: PayloadForm["kind"], values: Values): Promise<unknown> => {
    const parameters = method.parameters.map((parameter) => sqlValueOf(parameter, values[parameter.name]));
    let rows: readonly Readonly<Record<string, unknown>>[];
    try {
      rows = await queryText(client, statementOf(method, kind, quotedSchema), parameters, columnsOf(method));
    } catch (cause) {
      throw callFailure(cause, method.local);
    }
    return resultOf(method, rows);
  };
  const perform = async (name: Name, given: readonly unknown[]): Promise<unknown> => {
    const schema = table[name].publishes && isSchema(given[0]) ? given[0] : undefined;
    const target = schema === undefined ? name : (streamMethodOf(name, schema) as Name);
    const method = table[target];
    const values = valuesOf(target, method, given, schema);
    const payload = method.parameters.find(({ kind }) => kind === "payload" || kind === "payloads");
    if (payload === undefined) return await call(method, "binary", values);
    const runs = runsOf(messagesOf(method, payload, values, schema));
    let result: unknown;
    for (const { subject, headers, forms } of runs) {
      const contents = forms.map(({ value }) => value);
      const content = payload.kind === "payloads" ? contents : contents[0];
      result = await call(method, forms[0]!.kind, { ...values, subject, headers, [payload.name]: content });
    }
    return table[name].returns === "nothing" ? undefined : result;
  };
  const names = Object.keys(table) as Name[];
  const methods = names.map((name) => [name, (...given: unknown[]) => perform(name, given)] as const);
  return Object.fromEntries(methods) as Record<Name, (...given: unknown[]) => Promise<unknown>>;
}

/** @throws HawserError `invalid_schema` for a stream method if the option of the schema has no stream */
function streamMethodOf(name: string, schema: DescMessage): string {
  if (topicOf(schema).stream) return toStream[name] ?? name;
  const core = Object.keys(toStream).find((each) => toStream[each] === name);
  if (core === undefined) return name;
  throw new HawserError(
    "invalid_schema",
    `${schema.typeName}: its option does not say stream: true; set it, or call ${core}`,
  );
}

/** Arguments and options of a call by their names. @throws HawserError `invalid_argument` for an unknown option */
function valuesOf(
  name: string,
  { parameters }: SqlMethod,
  given: readonly unknown[],
  schema: DescMessage | undefined,
): Values {
  const positional = parameters.filter(({ isOption }) => !isOption);
  const options = given[positional.length] ?? {};
  const known = parameters.filter(({ isOption }) => isOption).map((parameter) => parameter.name);
  checkOptionNames(options as object, name, schema === undefined ? known : [...known, "format"]);
  return { ...options, ...Object.fromEntries(positional.map((parameter, index) => [parameter.name, given[index]])) };
}

/** Message to publish, or value of a key. */
interface PayloadToSend {
  readonly subject: unknown;
  readonly headers: unknown;
  readonly form: PayloadForm;
}

/** @throws HawserError `invalid_argument`, `invalid_schema` */
function messagesOf(
  { publishes }: SqlMethod,
  { kind, name }: SqlParameter,
  values: Values,
  schema: DescMessage | undefined,
): PayloadToSend[] {
  const given = values[name];
  if (kind === "payloads" && !Array.isArray(given)) {
    const text = `${name} of type ${typeof given}: must be an array, with one payload for each message`;
    throw invalidArgument(text);
  }
  const payloads = kind === "payloads" ? (given as readonly unknown[]) : [given];
  if (schema !== undefined) return typedMessagesOf(schema, payloads, values);
  const { subject } = values;
  const headers = publishes ? checkHeaders(values["headers"]) : undefined;
  const ofJson = publishes ? withContentType(headers) : undefined;
  return payloads.map((payload) => {
    const form = formOf(payload, name);
    return { subject, headers: form.kind === "json" ? ofJson : headers, form };
  });
}

/** @throws HawserError `invalid_argument` unless the headers are an object, or left out */
function checkHeaders(headers: unknown): object | undefined {
  if (headers === undefined || headers === null) return undefined;
  if (typeof headers === "object" && !Array.isArray(headers)) return headers;
  const given = Array.isArray(headers) ? "an array" : `of type ${typeof headers}`;
  throw invalidArgument(`headers ${given}: must be an object of strings, or of arrays of strings`);
}

function withContentType(headers: object = {}): object {
  const isGiven = Object.keys(headers).some((name) => name.toLowerCase() === contentTypeHeader);
  return isGiven ? headers : { [contentTypeHeader]: jsonContentType, ...headers };
}

function typedMessagesOf(schema: DescMessage, messages: readonly unknown[], values: Values): PayloadToSend[] {
  const topic = topicOf(schema);
  const format = checkFormat(values["format"]);
  const headers = { ...checkHeaders(values["headers"]), [contentTypeHeader]: contentTypeOf(schema, format) };
  return messages.map((message) => {
    const form = { kind: "binary", value: encode(schema, message as never, format) } as const;
    const id = idOfMessage(topic, message);
    return {
      subject: subjectOf(topic, message),
      headers: id === undefined ? headers : { [messageIdHeader]: id, ...headers },
      form,
    };
  });
}

/** Messages that one statement publishes. */
interface Run extends Omit<PayloadToSend, "form"> {
  readonly forms: PayloadForm[];
}

/** Groups consecutive messages with the same subject, headers and kind. */
function runsOf(messages: readonly PayloadToSend[]): Run[] {
  const runs: Run[] = [];
  for (const { subject, headers, form } of messages) {
    const last = runs.at(-1);
    const isSame = last && last.subject === subject && last.headers === headers && last.forms[0]!.kind === form.kind;
    if (isSame) last.forms.push(form);
    else runs.push({ subject, headers, forms: [form] });
  }
  return runs;
}

const payloadCasts: Readonly<Record<PayloadForm["kind"], string>> = {
  text: "text",
  json: "text::json",
  binary: "bytea",
};
const payloadListCasts: Readonly<Record<PayloadForm["kind"], string>> = {
  text: "text[]",
  json: "text[]::json[]",
  binary: "bytea[]",
};

/** @param place schema of the functions, quoted */
function statementOf(
  { sqlName, parameters, returns, results }: SqlMethod,
  kind: PayloadForm["kind"],
  quotedSchema: string,
): string {
  const placeholders = parameters.map((parameter, index) => {
    const casts = { payload: payloadCasts[kind], payloads: payloadListCasts[kind], value: parameter.type };
    return `$${index + 1}::${casts[parameter.kind as keyof typeof casts] ?? parameter.type}`;
  });
  const call = `${quotedSchema}.${sqlName.replace("{T}", kind)}(${placeholders.join(", ")})`;
  if (returns === "nothing") return `SELECT 1 AS nothing FROM ${call}`;
  if (returns === "value") return `SELECT value FROM ${call} AS answer(value)`;
  return `SELECT ${results.map(({ column }) => column).join(", ")} FROM ${call}`;
}

/** Columns of the statement of a method. */
function columnsOf({ returns, results }: SqlMethod): ResultColumns {
  if (returns === "nothing") return { nothing: "number" };
  if (returns === "value") return { value: results[0]!.kind };
  return Object.fromEntries(results.map(({ column, kind }) => [column, kind]));
}

/** Value of a parameter for node-postgres. @throws HawserError `invalid_argument` */
function sqlValueOf({ name, kind }: SqlParameter, value: unknown): unknown {
  if (value === undefined || value === null) return null;
  if (kind === "json") return jsonOf(name, value);
  if (kind === "payloads") return (value as readonly unknown[]).map(bufferOf);
  return bufferOf(value);
}

function jsonOf(name: string, value: unknown): string {
  const form = formOf(value, name);
  if (form.kind === "json") return form.value;
  throw invalidArgument(`${name} of type ${typeof value}: must be an object`);
}

/** Converts bytes to a Buffer, because node-postgres sends other views as JSON. */
function bufferOf(value: unknown): unknown {
  if (!(value instanceof Uint8Array) || Buffer.isBuffer(value)) return value;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

function resultOf({ returns, results }: SqlMethod, rows: readonly Readonly<Record<string, unknown>>[]): unknown {
  const objectOf = (row: Readonly<Record<string, unknown>>) =>
    Object.fromEntries(results.map((result) => [result.name, readResult(result, row[result.column])]));
  const [only, ...others] = results;
  switch (returns) {
    case "nothing":
      return undefined;
    case "value":
      return readResult(only!, rows[0]!["value"]);
    case "row":
      return objectOf(rows[0]!);
    case "rows":
      return others.length === 0 ? rows.map((row) => readResult(only!, row[only!.column])) : rows.map(objectOf);
  }
}

function readResult({ kind }: SqlResult, value: unknown): unknown {
  if (value === undefined || value === null) return undefined;
  return kind === "bytes" ? new ReceivedContent(value as Uint8Array) : value;
}

/** Codes of failed calls. Postgres passes on their SQLSTATEs, which are distinct. */
export const codesOfCalls: readonly ErrorCode[] = [
  ...(["invalid_argument", "null_argument", "not_text", "not_json", "not_supported"] as const),
  ...(["nats_failed", "nats_timeout", "no_responders", "no_stream", "jetstream_unavailable"] as const),
  ...(["payload_too_large", "unreadable_headers", "nats_permission_denied", "nats_unauthorized"] as const),
  ...(["nats_not_configured", "nats_unavailable", "secret_file", "file_missing", "server_uncommitted"] as const),
  ...(["gateway_unavailable", "gateway_busy", "gateway_limit", "gateway_protocol", "outcome_unknown"] as const),
  ...(["key_exists", "wrong_revision", "replica", "internal"] as const),
];

/** Codes of calls that Postgres answers itself; their SQLSTATEs map to other codes in the gateway. */
export const codesOfLocalCalls: readonly ErrorCode[] = ["not_permitted", "function_signature", "subscription_limit"];

const bySqlstate = new Map<string, ErrorCode>(codesOfCalls.map((code) => [errorTable[code].sqlstate, code]));
const localBySqlstate = new Map<string, ErrorCode>(codesOfLocalCalls.map((code) => [errorTable[code].sqlstate, code]));

/** Routines of Postgres that raise the errors of the functions and of the gateway. */
const raises = /^(exec_stmt_raise|dblink_res_error)$/;

/** Classes of SQLSTATE after which the outcome in NATS is unknown: connection, operator intervention, internal. */
const leavesOpen = /^(08|57|58|XX)/;

function callFailure(cause: unknown, local: boolean): HawserError {
  if (cause instanceof HawserError) return cause;
  const { message = String(cause), code, detail, hint, routine } = postgresErrorOf(cause);
  const details = { cause, detail: textOf(detail), remedy: textOf(hint) };
  const sqlstate = typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
  if (sqlstate !== undefined && (typeof routine !== "string" || raises.test(routine))) {
    const known = (local ? localBySqlstate.get(sqlstate) : undefined) ?? bySqlstate.get(sqlstate);
    if (known === "outcome_unknown") return new HawserError(known, message, { ...details, outcome: "unknown" });
    if (known !== undefined) return new HawserError(known, message, details);
  }
  const isOpen = sqlstate === undefined || leavesOpen.test(sqlstate);
  return new HawserError("store_failed", message, isOpen ? { ...details, outcome: "unknown" } : details);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
