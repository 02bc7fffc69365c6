/**
 * Hostile values for an argument, by its type, its name and the limits of the spec, as SQL expressions.
 */
import pg from "pg";
import { namedRules } from "../../../../generated/ts/rules/named.js";
import type { Parameter, SqlFunction } from "./catalog.js";
import type { VictimIds } from "./world.js";

/** A value, and what it is called in the report. */
export interface Value {
  readonly label: string;
  readonly sql: string;
}

const text = (value: string, label = JSON.stringify(value)): Value => ({ label, sql: pg.escapeLiteral(value) });
const nothing: Value = { label: "NULL", sql: "NULL" };

/** A text of that many bytes, which Postgres makes. */
const long = (bytes: number): Value => ({ label: `${bytes} bytes`, sql: `repeat('a', ${bytes})` });

/** Strings one byte beyond each limit of the spec, also with a multi-byte character at the end. */
function overLimits(): Value[] {
  const limits = Object.values(namedRules).flatMap((rules) => ("maxBytes" in rules ? [rules.maxBytes as number] : []));
  return [...new Set(limits)]
    .filter((limit) => limit <= 65_536)
    .sort((one, other) => one - other)
    .flatMap((limit) => [
      long(limit + 1),
      { label: `${limit + 1} bytes, the last two a letter`, sql: `repeat('a', ${limit - 1}) || U&'\\00e9'` },
    ]);
}

const controls = ["\u0001", "a\nb", "a\r\nb: c", "\u007f", "a\tb", "\u00a0", "\u2028", "\ufeff", "\u202e"];
const wildcards = [
  "*",
  ">",
  "a.*",
  "a.>",
  "%",
  "_",
  ".",
  "a..b",
  "$JS.API.>",
  "$SYS.>",
  "_INBOX.hawser.x",
  "__#outbox",
  "a:b:c",
];
const traps = [
  "'; SELECT 1; --",
  '"',
  "\\",
  "__proto__",
  "../../etc/passwd",
  "{}",
  "null",
  "-1",
  "postgres",
  "hawser_owner",
  "pg_catalog.pg_sleep",
];

const texts = (ids: VictimIds): Value[] => [
  nothing,
  text(""),
  text(" "),
  ...overLimits(),
  ...controls.map((each) => text(each)),
  ...wildcards.map((each) => text(each)),
  ...traps.map((each) => text(each)),
  ...ids.texts.map((each) => text(each)),
];

const numbers = (ids: VictimIds, least: string, most: string): Value[] => [
  nothing,
  ...["0", "-1", "1", least, most].map((each) => ({ label: each, sql: `'${each}'` })),
  ...ids.numbers
    .filter((each) => BigInt(each) <= BigInt(most))
    .map((each) => ({ label: `id ${each}`, sql: `'${each}'` })),
];

const bytes: readonly Value[] = [
  nothing,
  ...["", "\\x00", "\\xff", "\\xc3", `\\x${"00".repeat(32)}`].map((each) => text(each)),
  { label: "70,000 bytes", sql: "convert_to(repeat('a', 70000), 'UTF8')" },
];

const jsons: readonly Value[] = [
  nothing,
  ...[
    "null",
    "{}",
    "[]",
    "[[]]",
    "1",
    "1e400",
    '"a"',
    '{"a": 1}',
    '{"a": {"b": "c"}}',
    '{"a": [["b"]]}',
    '{"a": null}',
    '{"": "b"}',
    '{"a b": "c"}',
    '{"a:b": "c"}',
    '{"a": "b\\r\\nc: d"}',
    '{"a\\r\\nb": "c"}',
    '{"__proto__": ["a", "b"]}',
    '{"constructor": "a"}',
    '{"Nats-Msg-Id": "victim"}',
    '{"Nats-Rollup": "all"}',
    '{"Nats-Expected-Stream": "VICTIM"}',
    '{"\u00e9": "\u202e"}',
    '[["a", "b"]]',
    '[{"channel_id": 1, "epoch": 1, "number": 1, "payload_bytes": -1}]',
    '[{"role": "a", "route": null, "from": "1:1:", "to": "1:1:", "after": -1, "joins": true}]',
    '[{"id": 1, "code": "a", "message": "b", "attempts": -1}]',
  ].map((each) => text(each)),
  { label: "1,000 deep", sql: "repeat('[', 1000) || repeat(']', 1000)" },
  { label: "10,001 members", sql: `(SELECT json_object_agg('h' || n, 'v')::text FROM generate_series(1, 10001) AS n)` },
  { label: "a member of 70,000 bytes", sql: `json_build_object('a', repeat('b', 70000))::text` },
  { label: "a name of 70,000 bytes", sql: `json_build_object(repeat('b', 70000), 'a')::text` },
];

const times: readonly Value[] = [
  nothing,
  ...["infinity", "-infinity", "294276-12-31", "4713-01-01 BC", "epoch", "2100-01-01"].map((each) => text(each)),
];
const snapshots = [
  nothing,
  ...["1:1:", "3:3:", "1:9223372036854775807:", "9223372036854775807:9223372036854775807:"].map((each) => text(each)),
];
const ranges = [
  nothing,
  ...["{}", "{(,)}", "{[1,9223372036854775807)}", "{[-9223372036854775808,0)}"].map((each) => text(each)),
];
const tids = [nothing, ...["(0,0)", "(0,1)", "(4294967295,65535)"].map((each) => text(each))];
const booleans = [nothing, text("true"), text("false")];
const functions = (ids: VictimIds): Value[] => [
  nothing,
  ...[
    "-",
    "0",
    "1",
    "4294967295",
    "victim.note",
    "pg_catalog.pg_sleep",
    "pg_catalog.pg_terminate_backend",
    "no.such_function",
  ].map((each) => text(each)),
  ...ids.numbers.map((each) => text(each)),
];

/** The type that an argument is given with. */
export const concrete = (type: string): string => (type === "anyarray" ? "text[]" : type);

/** Hostile values for arrays, in addition to arrays of hostile elements. */
const arrays = [nothing, text("{}"), text("{NULL}"), { label: "no list at all", sql: "'{{}}'" }];

/** Hostile values for a parameter, in the same order each time. */
export function hostileValues({ type: declared }: Parameter, ids: VictimIds): readonly Value[] {
  const type = concrete(declared);
  if (type.endsWith("[]")) {
    const element = type.slice(0, -2);
    const elements = hostileValues({ name: "", type: element }, ids);
    return [
      ...arrays,
      ...elements.map(({ label, sql }) => ({ label: `[${label}]`, sql: `ARRAY[(${sql})::${element}]` })),
      { label: "[2:3]", sql: `array_fill(NULL::${element}, ARRAY[2], ARRAY[2])` },
      { label: "[[,],[,]]", sql: `array_fill(NULL::${element}, ARRAY[2, 2])` },
      {
        label: "10,001 elements",
        sql: `array_fill((${validValue({ name: "", type: element }).sql})::${element}, ARRAY[10001])`,
      },
    ];
  }
  switch (type) {
    case "text":
    case "name":
      return texts(ids);
    case "bytea":
      return bytes;
    case "json":
    case "jsonb":
      return jsons;
    case "smallint":
      return numbers(ids, "-32768", "32767");
    case "integer":
      return numbers(ids, "-2147483648", "2147483647");
    case "bigint":
      return numbers(ids, "-9223372036854775808", "9223372036854775807");
    case "oid":
    case "regproc":
      return functions(ids);
    case "boolean":
      return booleans;
    case "timestamp with time zone":
      return times;
    case "pg_snapshot":
      return snapshots;
    case "int8multirange":
      return ranges;
    case "tid":
      return tids;
    case "int2vector":
      return [nothing, text("1"), text("-1 0")];
    default:
      // A type of a wrapper, whose only value is NULL.
      if (type.startsWith("hawser_run.token_")) return [nothing];
      throw new Error(`values.ts has no hostile values of the type ${type}: add them`);
  }
}

/** Values that most functions accept for a parameter, by its name. */
const validByName: Readonly<Record<string, string>> = {
  subject: "'attack.subject'",
  p_subject: "'attack.subject'",
  topic: "'attack-topic'",
  p_topic: "'attack-topic'",
  p_topics: "ARRAY['attack-topic']",
  reply: "'attack.reply'",
  headers: "NULL",
  p_headers: "NULL",
  domain: "NULL",
  p_domain: "NULL",
  deliver_at: "NULL",
  p_deliver_at: "NULL",
  bucket: "'attack'",
  store: "'attack'",
  key: "'attack'",
  message_id: "NULL",
  stream: "'ATTACK'",
  p_stream: "'ATTACK'",
  filter: "NULL",
  p_filters: "'{}'",
  start: "'all'",
  p_start: "'all'",
  key_token: "NULL",
  p_key_token: "NULL",
  timeout: "200",
  name: "'attack'",
  p_name: "'attack-peer'",
  p_source_topic: "'attack-topic'",
  p_sender_name: "'attack-peer'",
  p_listener_name: "'attack-listener'",
  p_listener: "NULL",
  p_from: "'attack-peer'",
  p_to: "'attack-listener'",
  p_addr: "'127.0.0.1:1'",
  p_all: "false",
  p_force: "false",
  p_dead: "NULL",
  p_after: "NULL",
  p_recipient: "''",
  p_recipients: "ARRAY['']",
  p_roles: "ARRAY['attack']",
  p_lease_ms: "60000",
  p_most: "10",
  p_failure: "NULL",
  p_retention_ms: "86400000",
  since: "clock_timestamp()",
  until: "clock_timestamp()",
  p_days: "3650",
  p_max_rows: "10",
  p_max_messages: "10",
  p_max_bytes: "1000",
};

/** A value that a function accepts, where the others are hostile. @param attacker the role, for its own function */
export function validValue(
  { name, type: declared }: Parameter,
  { schema, name: called }: Partial<SqlFunction> = {},
  attacker = "",
): Value {
  const type = concrete(declared);
  if (type === "regproc") {
    const own = called?.includes("responder") ? "answer" : "note";
    return text(`attack_${attacker}.${own}`);
  }
  if (name === "p_function" && type === "bigint") {
    return { label: "its own function", sql: `'attack_${attacker}.note'::regproc::oid::bigint` };
  }
  // A subject without a stream would make the call wait for an answer of its subscribers.
  if (name === "subject" && /_(stream|ack)(_batch)?$/.test(called ?? "")) return text("attack.stream.a");
  // The stream that the others publish into stays.
  if (name === "stream" && /_(create|update|delete)_stream$/.test(called ?? "")) return text("ATTACK-OWN");
  // A request that somebody else is subscribed to would wait for an answer.
  if (name === "subject" && called?.startsWith("nats_request")) return text("nobody.attack");
  if (name === "p_kind") return text(schema === "hawser" && called?.startsWith("outbox") ? "peer" : "subscription");
  const byName = validByName[name];
  if (byName !== undefined && !(name === "p_from" && type !== "text")) return { label: byName, sql: byName };
  if (type.endsWith("[]")) {
    const element = type.slice(0, -2);
    return { label: "[one]", sql: `ARRAY[(${validValue({ name: "", type: element }).sql})::${element}]` };
  }
  const byType: Readonly<Record<string, string>> = {
    text: "'attack'",
    name: "'attack'",
    bytea: "'\\x61'",
    json: "'\"attack\"'",
    jsonb: '\'{"attack": "a"}\'',
    boolean: "false",
    "timestamp with time zone": "clock_timestamp()",
    pg_snapshot: "pg_current_snapshot()",
    int8multirange: "'{}'",
    tid: "'(0,1)'",
    int2vector: "'1'",
    oid: "'0'",
  };
  const sql = byType[type] ?? (type.startsWith("hawser_run.token_") ? "NULL" : "1");
  return { label: sql, sql };
}
