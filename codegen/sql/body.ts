import { readFileSync } from "node:fs";
import type { AnyDesc } from "@bufbuild/protobuf";
import type { NamedRules } from "../model/rules.js";
import type { SpecFile } from "../model/spec.js";
import { SpecError } from "../model/spec-error.js";
import { sqlString } from "./literal.js";
import { tracedCondition } from "./trace.js";

/**
 * SQL literals by name: fixed settings of a package and defaults of database settings (`Group.name`, as the spec writes
 * them), and the parts of named rules (`name.min_bytes`, `name.max_bytes`, `name.max_items`, `name.pattern`).
 */
export type SqlConstants = ReadonlyMap<string, string>;

const topicKeepMs = (topic: string): string =>
  `(SELECT s.keep_ms FROM hawser_data.topic_settings AS s WHERE s.topic = ${topic})`;
const keepMs = (row: string): string =>
  `coalesce(${row}.keep_ms, CASE WHEN NOT ${row}.to_all THEN ${topicKeepMs(`${row}.topic`)} END)`;

const ownRecipient = (worker: string): string =>
  `CASE WHEN strpos(${worker}.name, ':') = 0 THEN '@' || ${worker}.name END`;

/** SQL expressions over a row of the outbox or of the queue, whose alias or variable is the argument. */
const rowExpressions: Readonly<Record<string, (row: string) => string>> = {
  /** Id of a message that was given none. `v_secret` of the body is the secret of the outbox. */
  message_id: (row) =>
    `encode(substr(sha256(convert_to(v_secret || ${row}.id || ' ' || extract(epoch FROM ${row}.enqueued_at), 'UTF8')), 1, 16), 'hex')`,
  /** Headers of an enqueued message as peers get them: the origin and the key come before its own. */
  headers_of: (row) =>
    [
      `jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_origin_header@, coalesce(${row}.origin, ':') || ':' || CASE WHEN ${row}.channel_id IS NULL THEN regexp_replace(${row}.role, E'[\\x01-\\x1f\\x7f]', '?', 'g') ELSE '' END))`,
      `CASE WHEN ${row}.key IS NULL OR ${row}.channel_id IS NOT NULL THEN '[]' ELSE jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_key_header@, ${row}.key)) END`,
      `coalesce(${row}.headers, '[]')`,
    ].join(" || "),
  /** Length of a message of the queue in memory, at most: headers are stored compressed, to a hundredth at best. */
  memory_bytes: (row) =>
    `(octet_length(${row}.payload)::bigint + coalesce(pg_column_size(${row}.headers)::bigint * CASE WHEN pg_column_compression(${row}.headers) IS NULL THEN 1 ELSE 100 END, 0))`,
  /** Condition: the row of the queue is a message for all of which copies are to be made, not one of the copies. */
  is_for_all: (row) => `(${row}.to_all AND ${row}.recipient IN ('', @QueueConstants.priority_mark@))`,
  /** Length of a message of the queue, as far as it comes to the worker that takes it: of a message for all, nothing does. */
  taken_bytes: (row) =>
    `CASE WHEN ${rowExpressions["is_for_all"]!(row)} THEN 0 ELSE ${rowExpressions["memory_bytes"]!(row)} END`,
  /**
   * Condition: the row of the queue has no worker that goes on. A statement that locks such a row requires that its worker is still the same:
   * an id is never used again, so that a row which another one has taken meanwhile is left.
   */
  is_free: (row) =>
    `(${row}.worker IS NULL OR NOT EXISTS (SELECT FROM hawser_data.workers AS w WHERE w.id = ${row}.worker AND w.gone_at IS NULL))`,
  /** Condition: the settings of a topic let nothing of it begin. */
  is_paused: (settings) => `(${settings}.paused_at IS NOT NULL)`,
  /** Condition: the topic has limits of rate or of what runs. */
  is_limited: (settings) => `(num_nonnulls(${settings}.rate, ${settings}.running, ${settings}.running_per_key) > 0)`,
  /** Condition: the row of settings says something, and must stay. */
  has_settings: (settings) =>
    `(${rowExpressions["is_paused"]!(settings)} OR ${rowExpressions["is_limited"]!(settings)} OR ${settings}.keep_ms IS NOT NULL)`,
  /** Number of messages of a topic that its rate lets start at \`v_now\`, in microseconds since 1970; NULL: any number. */
  rate_left: (settings) =>
    `(${settings}.burst - ceil(greatest(0, ${settings}.full_at_us - v_now)::numeric / ${settings}.interval_us))`,
  /** Condition: a message that was given to a worker, of a topic with limits, has not ended, and the worker goes on. */
  is_started: (start) =>
    `EXISTS (SELECT FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NULL WHERE q.topic = ${start}.topic AND q.recipient = ${start}.recipient AND q.role = ${start}.role AND q.rank = ${start}.rank AND q.worker = ${start}.worker OFFSET 0)`,
  /** Rank of the first message with the key of a message, of its topic, recipient and role. */
  first_of_key: (row) =>
    `(SELECT h.rank FROM hawser_data.queue AS h WHERE h.topic = ${row}.topic AND h.recipient = ${row}.recipient AND h.key = ${row}.key AND h.role = ${row}.role ORDER BY h.rank LIMIT 1)`,
  /** Recipients whose messages a worker takes, as the queue has them: without a priority, and with one. */
  places_of: (worker) =>
    `(array_remove(ARRAY['', ${ownRecipient(worker)}, '#' || ${worker}.group_name, @QueueConstants.priority_mark@, @QueueConstants.priority_mark@ || ${ownRecipient(worker)}, @QueueConstants.priority_mark@ || '#' || ${worker}.group_name], NULL) || ARRAY(SELECT m.mark || '@' || n.name FROM unnest(${worker}.stands_in_for) AS n (name) CROSS JOIN (VALUES (''), (@QueueConstants.priority_mark@)) AS m (mark)))`,
  /** Number in a report of a worker, from 0 to 10^12. NULL: the value is no number, as a worker may report any JSON. */
  reported: (value) =>
    `CASE jsonb_typeof(${value}) WHEN 'number' THEN least(greatest((${value} #>> '{}')::numeric, 0), 1000000000000)::bigint END`,
  /** A text as a word of a shell. */
  shell_word: (text) =>
    `CASE WHEN ${text} ~ '^[A-Za-z0-9_.][A-Za-z0-9_./-]*$' THEN ${text} ELSE '''' || replace(${text}, '''', E'\\'\\\\\\'\\'') || '''' END`,
  /** Failed attempts of a message of the queue with the function's \`p_failure\`, as many as a dead letter keeps. */
  with_failure: (row) =>
    `(SELECT jsonb_agg(f.value ORDER BY f.nth) FROM (SELECT e.value, e.nth FROM jsonb_array_elements(coalesce(${row}.failures, '[]') || CASE WHEN p_failure IS NULL THEN '[]' ELSE jsonb_build_array(p_failure) END) WITH ORDINALITY AS e (value, nth) ORDER BY e.nth DESC LIMIT 16) AS f)`,
  /** Condition: the row is of one of `v_roles`, and that is still the role that has written it; or the caller has all rights. */
  is_own: (row) =>
    `(v_roles IS NULL OR ${row}.role = ANY (v_roles) AND ${row}.role_id = to_regrole(quote_ident(${row}.role))::oid::bigint)`,
  /** Condition: a message of the queue is not in line. Written so that what is searched by its id is not searched in an index of all of these. */
  is_later: (row) => `starts_with(${row}.recipient, @QueueConstants.later_mark@)`,
  /** Condition: the same, of a job; it is due later or held. */
  is_later_job: (row) => `(coalesce(${row}.later, 'nats') <> 'nats')`,
  /** Condition: a job is held until others have been handled. */
  is_held: (row) => `(coalesce(${row}.later, '') = 'held')`,
  /** Condition: something follows from the end of a message of the queue. */
  is_marked: (row) => `(${row}.key IS NOT NULL OR ${row}.unique_key IS NOT NULL OR ${row}.awaited_as IS NOT NULL)`,
  /** State of a job that has not ended. */
  job_state: (row) =>
    `CASE WHEN ${row}.later = 'held' THEN 'held' WHEN ${row}.later IS NOT NULL THEN 'later' WHEN ${rowExpressions["is_free"]!(row)} THEN 'waiting' ELSE 'running' END`,
  /** Name of the worker that has a message of the queue, and goes on. */
  worker_name: (row) =>
    `CASE WHEN ${row}.worker IS NOT NULL THEN (SELECT w.name FROM hawser_data.workers AS w WHERE w.id = ${row}.worker AND w.gone_at IS NULL) END`,
  /** When a message of the queue is due; NULL for one that has no such time, or runs. */
  job_due: (row) => `CASE WHEN ${rowExpressions["is_free"]!(row)} THEN ${row}.due_at END`,
  /** Key in the headers of a message. */
  header_key: (row) =>
    `(SELECT h.of ->> 1 FROM jsonb_array_elements(CASE jsonb_typeof(${row}.headers) WHEN 'array' THEN ${row}.headers END) AS h (of) WHERE h.of ->> 0 = @ProtocolConstants.message_key_header@ LIMIT 1)`,
  /** Key that was given to a message of the queue. In its own key, one that was sent has its channel. */
  user_key: (row) =>
    `(CASE WHEN ${row}.channel_id IS NULL THEN ${row}.key ELSE ${rowExpressions["header_key"]!(row)} END)`,
  /** Condition: the row has the header of the function's arguments. */
  has_header: (row) =>
    `(header_name IS NULL OR EXISTS (SELECT FROM jsonb_array_elements(CASE jsonb_typeof(${row}.headers) WHEN 'array' THEN ${row}.headers END) AS h (of) WHERE h.of ->> 1 = header_value AND lower((h.of ->> 0) COLLATE "C") = lower(header_name COLLATE "C")))`,
  /** Condition: what became of a message is kept, and it is no dead letter any more. */
  is_in_history: (row) =>
    `(${row}.expires_at > clock_timestamp() AND (${row}.state <> 'dead' OR NOT EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.job_id = ${row}.id)))`,
  /** Element of the argument of `end_marked`, of a message of the queue. */
  marks_of: (row) =>
    `jsonb_build_array(${row}.role, ${row}.topic, ${row}.unique_key, ${row}.id, ${row}.awaited_as, ${row}.recipient, ${row}.key)`,
  /** Time for which the result of a message of the queue is kept: its own, otherwise that of its topic. Copies for all have none. */
  keep_ms_of: keepMs,
  /** A message of the queue, for `keep_ended`. */
  kept_of: (row) =>
    `jsonb_build_object('id', ${row}.id, 'role', ${row}.role, 'role_id', ${row}.role_id, 'topic', ${row}.topic, 'keep_ms', ${keepMs(row)}, 'enqueued_at', ${row}.enqueued_at, 'attempts', ${row}.attempts, 'worker', ${row}.worker, 'progress', ${row}.progress, 'key', ${rowExpressions["user_key"]!(row)}, 'headers', ${row}.headers)`,
  /** Condition: somebody may wait for the end of a message. Asked as in `wake_topics`: whoever else has the lock costs a needless notification. */
  is_awaited: (row) =>
    `(CASE WHEN pg_try_advisory_lock(@QueueConstants.results_lock@, (${row}.id & 31)::integer) THEN NOT pg_advisory_unlock(@QueueConstants.results_lock@, (${row}.id & 31)::integer) ELSE true END)`,
  /** Statement: writes the history of messages that have ended, rows of a query, as far as it is to be kept. */
  keep: (query) =>
    [
      "INSERT INTO hawser_data.results (segment, id, role, role_id, topic, state, key, headers, listener, attempts, enqueued_at, ended_at, duration_ms, progress, result, error_code, error_message, expires_at)",
      "SELECT (extract(epoch FROM e.expires_at)::bigint / 86400) % @QueueConstants.result_segments@, m.id, m.role, m.role_id, m.topic, m.state, m.key, m.headers,",
      "(SELECT w.name FROM hawser_data.workers AS w WHERE w.id = m.worker), m.attempts, m.enqueued_at, statement_timestamp(),",
      "m.duration_ms, m.progress, m.result, m.error_code, m.error_message, e.expires_at",
      `FROM ${query} AS m CROSS JOIN LATERAL (SELECT statement_timestamp() + m.keep_ms * interval '1 millisecond' AS expires_at) AS e`,
      "WHERE m.keep_ms IS NOT NULL",
    ].join(" "),
  /** Time `at` of a row in whole milliseconds since 1970, rounded down; of a time that is not finite, one that is. */
  due_ms: (row) =>
    `floor(extract(epoch FROM least(greatest(${row}.at, '1970-01-01 00:00:00Z'), '2900-01-01 00:00:00Z')) * 1000)::bigint`,
  /** Headers that were given, with the function's `attempts`. */
  with_attempts: (headers) =>
    `CASE WHEN attempts IS NULL THEN ${headers} ELSE coalesce(${headers}, '{}') || jsonb_build_object(@ProtocolConstants.message_attempts_header@, attempts::text) END`,
  /** Condition: the message before a row of `flow_edges` has ended without being handled, and is not back as a retried dead letter. */
  is_blocking: (row) =>
    `(${row}.ended AND NOT EXISTS (SELECT FROM hawser_data.queue AS q WHERE q.id = ${row}.before_id))`,
  /** Recipient of what is for a worker alone; NULL for a name with a colon, under which nothing can be enqueued. */
  own_recipient: ownRecipient,
  /** Statement: raises the error of a worker that has ended. */
  raise_lease_lost: (worker) =>
    `RAISE EXCEPTION USING ERRCODE = hawser.error_sqlstate('lease_lost'), MESSAGE = format('the worker %s has ended', ${worker}), HINT = 'Begin a new one with hawser.open_worker, and forget what this one had.'`,
  /** Time without a beat after which others end a worker. */
  lease_of: (row) =>
    `make_interval(secs => CASE WHEN ${row}.is_idle THEN @QueueConstants.idle_lease_ms@ ELSE ${row}.lease_ms END / 1000.0)`,
  /** Up to 100 messages that hold a message, those that release nothing first. */
  waits_for: (row) =>
    [
      "(SELECT jsonb_agg(jsonb_build_object('id', n.before_id::text, 'state', n.state) ORDER BY n.state = 'waiting', n.before_id) FROM (",
      "SELECT e.before_id, CASE",
      `WHEN NOT ${rowExpressions["is_blocking"]!("e")} THEN 'waiting'`,
      "WHEN EXISTS (SELECT FROM hawser_data.dead_letters AS d WHERE d.job_id = e.before_id) THEN 'dead' ELSE 'gone' END AS state",
      `FROM hawser_data.flow_edges AS e WHERE e.after_id = ${row}.id ORDER BY NOT e.ended, e.before_id LIMIT 100) AS n)`,
    ].join(" "),
  /** Messages with one route are published in their order, and suspended together. */
  route: (row) => `coalesce('domain ' || CASE WHEN ${row}.to_stream THEN ${row}.domain END, ${row}.destination)`,
};

/** Collects the constants of files and named rules. */
export function sqlConstants(files: readonly SpecFile[], namedRules: readonly NamedRules[] = []): SqlConstants {
  const groups = files.flatMap((file) => file.settingGroups);
  const settings = groups.flatMap((group) =>
    group.settings
      .filter(({ part }) => group.fixed || part === "database")
      .map(({ field, default: value }) => [`${group.message.name}.${field.name}`, value] as const),
  );
  const rules = namedRules.flatMap(({ name, rules: { minBytes, maxBytes, maxItems, pattern } }) => [
    [`${name}.min_bytes`, minBytes] as const,
    [`${name}.max_bytes`, maxBytes] as const,
    [`${name}.max_items`, maxItems] as const,
    [`${name}.pattern`, pattern?.source] as const,
  ]);
  return new Map(
    [...settings, ...rules].flatMap(([name, value]) =>
      value === undefined ? [] : [[name, typeof value === "string" ? sqlString(value) : String(value)]],
    ),
  );
}

/**
 * Reads a PL/pgSQL block from the file that the spec names.
 *
 * @throws SpecError as {@link readSqlFile}, or if the file is not a PL/pgSQL block
 */
export function readBody(where: AnyDesc, bodyFile: string, constants: SqlConstants): string {
  const text = readSqlFile(where, "body_file", bodyFile, constants);
  if (!/\bBEGIN\b/i.test(text) || !/\bEND\s*;?\s*$/i.test(text) || /^(\s|--.*\n)*CREATE\b/i.test(text)) {
    throw new SpecError(where, `body_file ${bodyFile} is not a PL/pgSQL block: DECLARE … BEGIN … END`);
  }
  return text;
}

/**
 * Reads the query of a view from the file that the spec names.
 *
 * @throws SpecError as {@link readSqlFile}
 */
export function readQuery(where: AnyDesc, queryFile: string, constants: SqlConstants): string {
  return readSqlFile(where, "query_file", queryFile, constants).trimEnd();
}

/**
 * Reads SQL from a file. Its path is relative to the working directory: buf runs plugins in the root of the project. Each
 * name of a constant between two `@` in the text is replaced by its value, `@traced@` by {@link tracedCondition}, and
 * `@name(row)@` by an expression of {@link rowExpressions}.
 *
 * @param option the option that names the file
 * @throws SpecError if the file names an unknown setting or expression
 */
function readSqlFile(where: AnyDesc, option: string, path: string, constants: SqlConstants): string {
  return readFileSync(path, "utf8")
    .replaceAll("\r\n", "\n")
    .replaceAll("@traced@", () => tracedCondition(constants))
    .replace(/@(\w+)\((\w+)\)@/g, (macro, name: string, row: string) => {
      const expression = rowExpressions[name];
      if (expression === undefined) {
        throw new SpecError(
          where,
          `${option} ${path} contains ${macro}; known are ${Object.keys(rowExpressions)
            .map((known) => `@${known}(row)@`)
            .join(", ")}`,
        );
      }
      return expression(row);
    })
    .replace(/@(\w+\.\w+)@/g, (_, name: string) => {
      const value = constants.get(name);
      if (value === undefined) {
        throw new SpecError(where, `${option} ${path} names the setting ${name}, which is not a fixed setting`);
      }
      return value;
    });
}
