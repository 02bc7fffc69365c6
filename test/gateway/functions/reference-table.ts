/**
 * The functions as people know them, written down by hand from what they had before: names, parameters with types and
 * defaults, and what comes back. Nothing here is read from the spec.
 */

/** A function: its parameters and its result as Postgres prints them. */
export interface ReferenceFunction {
  readonly name: string;
  readonly parameters: string;
  readonly result: string;
}

/** Payload types by the text that replaces T in a name. */
const payloadTypes = { text: "text", json: "json", jsonb: "jsonb", binary: "bytea" } as const;

const fileColumns =
  "TABLE(name text, description text, metadata jsonb, headers jsonb, options jsonb, bucket text, nuid text, " +
  "size bigint, chunks bigint, modified text, digest text, delete boolean)";

const serverColumns =
  "TABLE(server_id text, server_name text, host text, port integer, version text, auth_required boolean, " +
  "tls_requiered boolean, max_payload bigint, proto smallint, client_id bigint, go text, nonce text, " +
  "connect_urls jsonb, client_ip text, headers boolean, lame_duck_mode boolean, tls_required boolean)";

const versionColumns = "TABLE(version text, commit_date text, short_commit text, branch text, last_tag text)";

const ackColumns = "TABLE(stream text, seq bigint, duplicate boolean)";

const historyColumns = "TABLE(revision bigint, operation text, value bytea, created text)";

const streamColumns =
  "TABLE(stream text, subjects text[], storage text, retention text, discard text, max_age_ms bigint, " +
  "max_messages bigint, max_bytes bigint, max_message_bytes integer, duplicate_window_ms bigint, replicas integer, " +
  "messages bigint, bytes bigint, first_seq bigint, last_seq bigint, consumers integer, created text)";

const streamLimits =
  "discard text DEFAULT NULL::text, max_age_ms bigint DEFAULT NULL::bigint, max_messages bigint DEFAULT NULL::bigint, " +
  "max_bytes bigint DEFAULT NULL::bigint, max_message_bytes integer DEFAULT NULL::integer, " +
  "duplicate_window_ms bigint DEFAULT NULL::bigint, replicas integer DEFAULT NULL::integer";

const reply = "reply text DEFAULT NULL::text";
const headers = "headers jsonb DEFAULT NULL::jsonb";
const domain = "domain text DEFAULT NULL::text";

/** Functions with a variant for each type of payload: T is its name, PAYLOAD its type. */
const forEachType: readonly (readonly [name: string, parameters: string, result: string])[] = [
  ["nats_publish_T", `subject text, payload PAYLOAD, ${reply}, ${headers}`, "void"],
  ["nats_publish_T_stream", `subject text, payload PAYLOAD, ${headers}, ${domain}`, "void"],
  ["nats_request_T", "subject text, payload PAYLOAD, timeout integer DEFAULT NULL::integer", "bytea"],
  ["nats_put_T", `bucket text, key text, data PAYLOAD, ${domain}`, "bigint"],
  ["nats_get_T", `bucket text, key text, ${domain}`, "PAYLOAD"],
  // Ours beside them.
  ["nats_kv_create_T", `bucket text, key text, data PAYLOAD, ${domain}`, "bigint"],
  ["nats_kv_update_T", `bucket text, key text, data PAYLOAD, revision bigint, ${domain}`, "bigint"],
  ["nats_publish_T_ack", `subject text, payload PAYLOAD, ${headers}, ${domain}`, ackColumns],
  ["nats_publish_T_batch", `subject text, payloads PAYLOAD[], ${reply}, ${headers}`, "void"],
  ["nats_publish_T_stream_batch", `subject text, payloads PAYLOAD[], ${headers}, ${domain}`, "void"],
];

const single: readonly (readonly [name: string, parameters: string, result: string])[] = [
  ["nats_delete_value", `bucket text, key text, ${domain}`, "void"],
  ["nats_kv_keys", `bucket text, ${domain}`, "TABLE(key text)"],
  ["nats_kv_history", `bucket text, key text, ${domain}`, historyColumns],
  ["nats_put_file", `store text, name text, content bytea, ${domain}`, "void"],
  ["nats_get_file", `store text, name text, ${domain}`, "bytea"],
  ["nats_delete_file", `store text, name text, ${domain}`, "void"],
  ["nats_get_file_info", `store text, name text, ${domain}`, fileColumns],
  ["nats_get_file_list", `store text, ${domain}`, fileColumns],
  [
    "nats_create_stream",
    `stream text, subjects text[], storage text DEFAULT NULL::text, retention text DEFAULT NULL::text, ${streamLimits}, ${domain}`,
    "void",
  ],
  ["nats_update_stream", `stream text, subjects text[] DEFAULT NULL::text[], ${streamLimits}, ${domain}`, "void"],
  ["nats_delete_stream", `stream text, ${domain}`, "void"],
  ["nats_get_stream_list", domain, streamColumns],
  ["nats_get_server_info", "", serverColumns],
  ["litmus_pgnats_version", "", versionColumns],
  ["pgnats_version", "", versionColumns],
  ["litmus_pgnats_reload_conf", "", "void"],
  ["pgnats_reload_conf", "", "void"],
  ["litmus_pgnats_reload_conf_force", "", "void"],
  ["pgnats_reload_conf_force", "", "void"],
  ["nats_flush", "", "void"],
];

/** All of them. */
export const referenceFunctions: readonly ReferenceFunction[] = [
  ...forTypes(forEachType),
  ...single.map(([name, parameters, result]) => ({ name, parameters, result })),
];

function forTypes(functions: typeof forEachType): ReferenceFunction[] {
  return functions.flatMap(([name, parameters, result]) =>
    Object.entries(payloadTypes).map(([type, payload]) => ({
      name: name.replace("_T", `_${type}`),
      parameters: parameters.replace("PAYLOAD", payload),
      result: result.replace("PAYLOAD", payload),
    })),
  );
}

/** The names of its parameters, and whether they have a default. */
export function parametersOf({
  parameters,
}: ReferenceFunction): { readonly name: string; readonly hasDefault: boolean }[] {
  const each = parameters === "" ? [] : parameters.split(", ");
  return each.map((one) => ({ name: one.split(" ")[0]!, hasDefault: one.includes(" DEFAULT ") }));
}

const key = "key text DEFAULT NULL::text";
const deliverAt = "deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone";
const messageId = "message_id text DEFAULT NULL::text";

const stream = "stream boolean";
const toAll = "to_all boolean DEFAULT NULL::boolean";
const priority = "priority integer DEFAULT NULL::integer";
const attempts = "attempts integer DEFAULT NULL::integer";

/** Overloads of the outbox, in the schema `hawser`: for topics and for subjects. They do not ask the gateway, and are tried in `test/outbox/`. */
export const enqueuingFunctions: readonly ReferenceFunction[] = forTypes([
  [
    "enqueue",
    `topic text, payload PAYLOAD, ${headers}, ${key}, ${messageId}, ${deliverAt}, ${toAll}, ${priority}, ${attempts}`,
    "bigint",
  ],
  [
    "enqueue_batch",
    `topic text, payloads PAYLOAD[], ${headers}, ${key}, ${deliverAt}, ${toAll}, ${priority}, ${attempts}`,
    "bigint[]",
  ],
  [
    "enqueue_after",
    `topic text, payload PAYLOAD, after bigint[], cancels boolean DEFAULT NULL::boolean, ${headers}, ${key}, ${messageId}, ${deliverAt}, ${toAll}, ${priority}, ${attempts}`,
    "bigint",
  ],
  [
    "enqueue_unique",
    `topic text, payload PAYLOAD, unique_key text, replaces boolean DEFAULT NULL::boolean, while_running boolean DEFAULT NULL::boolean, ${headers}, ${messageId}, ${deliverAt}, ${priority}, ${attempts}`,
    "bigint",
  ],
  [
    "enqueue",
    `subject text, payload PAYLOAD, ${stream}, ${headers}, ${key}, ${messageId}, ${domain}, ${deliverAt}`,
    "bigint",
  ],
  [
    "enqueue_batch",
    `subject text, payloads PAYLOAD[], ${stream}, ${headers}, ${key}, ${domain}, ${deliverAt}`,
    "bigint[]",
  ],
]);

/** Functions that run as their caller, who owns the objects that they make. They do not ask the gateway. */
export const callersFunctions: readonly ReferenceFunction[] = [
  ...["nats_subscribe", "nats_unsubscribe", "litmus_pgnats_register_responder", "pgnats_register_responder"].map(
    (name) => ({ name, parameters: "subject text, fn_oid regproc", result: "void" }),
  ),
  ...["litmus_pgnats_unregister_responder", "pgnats_unregister_responder"].map((name) => ({
    name,
    parameters: "subject text",
    result: "void",
  })),
  {
    name: "nats_subscribe_stream",
    parameters: `stream text, fn_oid regproc, name text, filter text[] DEFAULT NULL::text[], start text DEFAULT NULL::text, key_token integer DEFAULT NULL::integer, ${domain}`,
    result: "void",
  },
  { name: "nats_unsubscribe_stream", parameters: "name text", result: "void" },
  { name: "nats_seek_stream", parameters: "name text, start text", result: "void" },
];
