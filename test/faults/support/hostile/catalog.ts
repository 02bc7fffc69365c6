/**
 * Every SQL object of an installation, read from the catalogs, and who may use it. An object that nobody has classified here
 * fails the test: decide who may call or read it, and add it to the table below.
 */
import type pg from "pg";

/**
 * The roles that attack; `none` is a login that has been granted nothing. The one that may publish comes last, so that what
 * comes to NATS before is none of its messages.
 */
export const attackerRoles = [
  "none",
  "hawser_viewer",
  "hawser_executor",
  "hawser_bridge",
  "hawser_peer",
  "hawser_nats",
] as const;
export type AttackerRole = (typeof attackerRoles)[number];

/** A parameter of a function. */
export interface Parameter {
  readonly name: string;
  /** Type as shown by `format_type`, such as `text[]`. */
  readonly type: string;
}

/** A function or procedure. */
export interface SqlFunction {
  readonly schema: string;
  readonly name: string;
  /** Schema, name and argument types, each type with its schema. */
  readonly signature: string;
  readonly parameters: readonly Parameter[];
  readonly isTrigger: boolean;
  /** Name without its random part, under which calls are classified. */
  readonly classified: string;
  /** The roles that may execute it and use its schema. */
  readonly callers: ReadonlySet<string>;
}

/** A table, view, sequence, type or schema. */
export interface SqlObject {
  readonly kind: "relation" | "type" | "schema";
  readonly name: string;
  /** Role and privilege, such as `hawser_peer:SELECT`. */
  readonly privileges: readonly string[];
}

/** Schemas that `hawser init` makes; in `public` only what it installs there. */
const ownSchemas = "nspname LIKE 'hawser%'";

/** All functions, in the order of their signatures. @param logins the login of each role, by the role */
export async function functionsOf(
  client: pg.Client,
  logins: ReadonlyMap<AttackerRole, string>,
): Promise<SqlFunction[]> {
  const { rows } = await client.query(
    `SELECT n.nspname AS schema, p.proname AS name, p.oid::regprocedure::text AS signature,
            p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) AS "isTrigger",
            ARRAY(SELECT coalesce((p.proargnames::text[])[a.nth], '') FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, nth)) AS names,
            ARRAY(SELECT format_type(a.type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, nth) ORDER BY a.nth) AS types,
            ARRAY(SELECT l.login FROM unnest($1::text[]) AS l (login)
                   WHERE has_function_privilege(l.login, p.oid, 'EXECUTE') AND has_schema_privilege(l.login, n.oid, 'USAGE')) AS callers
       FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE n.${ownSchemas} OR n.nspname = 'public'
      ORDER BY 3`,
    [[...logins.values()]],
  );
  const roleOf = new Map([...logins].map(([role, login]) => [login, role]));
  return rows.map(({ names, types, callers, ...each }) => ({
    ...each,
    classified: classifiedAs(each.schema, each.name, names),
    // The input parameters come first in all of ours, the results behind them.
    parameters: (types as string[]).map((type, nth) => ({ name: (names as string[])[nth]!, type })),
    callers: new Set((callers as string[]).map((login) => roleOf.get(login)!)),
  }));
}

/** Functions with one form for peers and one for NATS, each for its role. */
const overloads = new Set(["enqueue", "enqueue_batch", "schedule"]);

function classifiedAs(schema: string, name: string, parameters: readonly string[]): string {
  if (schema === "hawser" && overloads.has(name))
    return `hawser.${name}(${parameters.includes("subject") ? "subject" : "topic"})`;
  if (schema === "hawser_run") return name.startsWith("settle ") ? "hawser_run.settle" : "hawser_run.wrapper";
  return schema === "hawser_dblink" || schema === "hawser_fdw" ? `${schema}.*` : `${schema}.${name}`;
}

/** All relations, types of their own and schemas, with what each role may do to them. */
export async function objectsOf(client: pg.Client, logins: ReadonlyMap<AttackerRole, string>): Promise<SqlObject[]> {
  const values = [[...logins.keys()], [...logins.values()]];
  const { rows } = await client.query(
    `WITH logins AS (SELECT * FROM unnest($1::text[], $2::text[]) AS l (role, login))
     SELECT 'relation' AS kind, c.oid::regclass::text AS name, ARRAY(
              SELECT l.role || ':' || p FROM logins AS l, unnest(CASE c.relkind WHEN 'S' THEN ARRAY['USAGE', 'SELECT', 'UPDATE']
                       ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'] END) AS p
               WHERE has_schema_privilege(l.login, n.oid, 'USAGE')
                 AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(l.login, c.oid, p)
                       WHEN 'c' THEN false
                       ELSE has_table_privilege(l.login, c.oid, p)
                            OR p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(l.login, c.oid, p) END
               ORDER BY 1) AS privileges
       FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      WHERE n.${ownSchemas} AND c.relkind NOT IN ('i', 'I', 't')
     UNION ALL
     SELECT 'type', t.oid::regtype::text, ARRAY(
              SELECT l.role || ':USAGE' FROM logins AS l
               WHERE has_schema_privilege(l.login, n.oid, 'USAGE') AND has_type_privilege(l.login, t.oid, 'USAGE') ORDER BY 1)
       FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
      WHERE n.${ownSchemas} AND t.typrelid = 0 AND t.typelem = 0
     UNION ALL
     SELECT 'schema', n.nspname, ARRAY(
              SELECT l.role || ':' || p FROM logins AS l, unnest(ARRAY['USAGE', 'CREATE']) AS p
               WHERE has_schema_privilege(l.login, n.oid, p) ORDER BY 1)
       FROM pg_namespace AS n WHERE n.${ownSchemas}
     ORDER BY 1, 2`,
    values,
  );
  return rows;
}

/** The columns of a table that can be written, in their order. */
export async function columnsOf(client: pg.Client, table: string): Promise<Parameter[]> {
  const { rows } = await client.query(
    `SELECT quote_ident(attname) AS name, format_type(atttypid, NULL) AS type FROM pg_attribute
      WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`,
    [table],
  );
  return rows;
}

const letters: Readonly<Record<string, AttackerRole>> = {
  "0": "none",
  n: "hawser_nats",
  p: "hawser_peer",
  b: "hawser_bridge",
  x: "hawser_executor",
  v: "hawser_viewer",
};

/** The roles of letters such as `np`; `-` is nobody. */
const rolesOf = (text: string): ReadonlySet<AttackerRole> =>
  new Set([...text.replace("-", "")].map((letter) => letters[letter]!));

/** `{T}` stands for each type of payload. */
const withTypes = (name: string): string[] =>
  name.includes("{T}") ? ["text", "json", "jsonb", "binary"].map((type) => name.replace("{T}", type)) : [name];

/** Lines of who and what: the roles' letters, then names. */
function table(text: string): ReadonlyMap<string, ReadonlySet<AttackerRole>> {
  const entries = text
    .trim()
    .split("\n")
    .flatMap((line) => {
      const [who, ...names] = line.trim().split(/\s+/);
      return names.flatMap(withTypes).map((name) => [name, rolesOf(who!)] as const);
    });
  return new Map(entries);
}

/**
 * Who may call what: n `hawser_nats`, p `hawser_peer`, b `hawser_bridge`, x `hawser_executor`, v `hawser_viewer`, 0 a login that has been granted
 * nothing, - nobody but the owner. `hawser_bridge` is in the executor's login. The functions of `hawser_fdw` run within
 * `CREATE SERVER` of anybody, with the rights of their caller.
 */
const callersOf = table(`
  n public.nats_publish_{T} public.nats_publish_{T}_batch public.nats_publish_{T}_stream public.nats_publish_{T}_ack
  n public.nats_publish_{T}_stream_batch public.nats_flush public.nats_request_{T}
  n hawser.enqueue(subject) hawser.enqueue_batch(subject) hawser.schedule(subject)
  n public.nats_put_{T} public.nats_get_{T} public.nats_delete_value public.nats_kv_create_{T} public.nats_kv_update_{T}
  n public.nats_kv_keys public.nats_kv_history public.nats_put_file public.nats_get_file public.nats_delete_file
  n public.nats_get_file_info public.nats_get_file_list public.nats_get_server_info
  n public.nats_create_stream public.nats_update_stream public.nats_delete_stream public.nats_get_stream_list
  n public.nats_subscribe public.nats_unsubscribe public.nats_subscribe_stream public.nats_unsubscribe_stream
  n public.nats_seek_stream public.litmus_pgnats_register_responder public.pgnats_register_responder
  n public.litmus_pgnats_unregister_responder public.pgnats_unregister_responder
  n public.litmus_pgnats_version public.pgnats_version public.litmus_pgnats_reload_conf public.pgnats_reload_conf
  n public.litmus_pgnats_reload_conf_force public.pgnats_reload_conf_force
  p hawser.cancel_flow hawser.enqueue(topic) hawser.enqueue_batch(topic) hawser.enqueue_peer hawser.enqueue_after hawser.enqueue_after_peer hawser.enqueue_unique hawser.enqueue_unique_peer hawser.schedule(topic)
  p hawser.channels_with_messages hawser.clear_addresses hawser.clear_stored_messages hawser.commit_cursors hawser.commit_durably
  p hawser.open_channel hawser.count_messages hawser.discard_dead_letters hawser.drain_messages hawser.drain_rows
  p hawser.enter_directory hawser.expire_dead_letters hawser.id_of_topic
  p hawser.forget_peer hawser.leave_directory hawser.release_stored hawser.retry_dead_letters hawser.edit_dead_letter hawser.store_messages
  p hawser.own_name hawser.keep_name hawser.release_name hawser.end_ownership
  p hawser.fenced hawser.raise_fence hawser.share_fences hawser.lock_dead_letters hawser.running_peers
  p hawser.lanes_left hawser.lock_cursors hawser.cursor_of
  p hawser.done hawser.done_batch
  p hawser.begin_unique hawser.end_workers hawser.queue_places hawser.queue_find hawser.reassign_queued
  p hawser.pause_topic hawser.paused_topics hawser.resume_topic hawser.limit_topic hawser.keep_results
  p hawser.keep_result hawser.job hawser.set_progress
  - hawser.free_unique hawser.announce_due hawser.announce_lease hawser.admit_starts hawser.count_starts hawser.limit_key
  n hawser.add_handler hawser.add_stream hawser.apply_seek hawser.bind_handler hawser.lock_handlers hawser.request_seek
  n hawser.stream_start hawser.subjects_overlap hawser.unbind_handler
  nb hawser.prune_handlers
  np hawser.cancel hawser.cancel_messages hawser.outbox_find hawser.outbox_replay hawser.replay_page hawser.unschedule hawser.run_schedule
  pb hawser.open_worker hawser.resume_worker hawser.serve_topics hawser.take hawser.extend hawser.rest hawser.begin hawser.retry hawser.give_up hawser.give_back hawser.end_cancelled hawser.close_worker hawser.wait_for hawser.stop_waiting
  pb hawser.adopt_roles hawser.applied_migrations hawser.behind_sequences hawser.due_schedules hawser.run_schedules
  b hawser.outbox_turn_nats hawser.outbox_take hawser.outbox_rotate
  pb hawser.bring_due
  pnbv hawser.outbox_undone hawser.queue_backlog
  p hawser.queue_find hawser.why hawser.jobs hawser.count_jobs hawser.first_jobs hawser.job_message
  pv hawser.topic_status
  pbv hawser.peer_status hawser.worker_status hawser.backlog hawser.dead_letter_counts hawser.take_sample hawser.samples
  bx hawser.token_of hawser.fence_batch hawser.stream_position
   bx hawser.mark_handled hawser.wrapper_version
   b hawser.drop_unsubscribed hawser.read_lead hawser.take_lead hawser.raise_lead hawser.keep_lead
  b hawser.add_subscription_dead_letter hawser.follow_nats_server hawser.gateway_unreached_at hawser.nats_foreign_servers
  pnbxv hawser.refuse_argument hawser.header_excess hawser.list_excess
  pnbxv hawser.error_codes hawser.error_sqlstate
  - hawser.outbox_poll hawser.callers_roles hawser.check_headers hawser.with_trace
  - hawser.enqueue_message hawser.enqueue_nats hawser.lock_key hawser.gateway_call hawser.gateway_conninfo hawser.gateway_lost hawser.least_due hawser.bring_later hawser.bring_page hawser.check_due
  - hawser.mesh_secret_notify hawser.nats_handlers_notify hawser.nats_server_notify hawser.listeners_notify
  - hawser.next_message_id hawser.peer_headers hawser.present_cluster hawser.refuse_uncommitted_server hawser.retry_subscribed hawser.give_up_subscribed hawser.check_places hawser.retry_enqueued hawser.dead_letter_fault
  - hawser.is_alive hawser.raise_owner hawser.set_nats_server hawser.write_schedule
  - hawser.queue_messages hawser.cancel_queued hawser.end_marked hawser.pass_keys hawser.pass_left_keys hawser.put_behind hawser.lock_queued hawser.admit_topics hawser.find_ready hawser.judge_starts hawser.first_of_keys hawser.find_copies hawser.make_copies hawser.count_left hawser.note_starts hawser.end_flows hawser.keep_ended hawser.tell_ended hawser.expire_results hawser.remember_served hawser.wake_topics hawser.wait_locks hawser.retry_queued
  - hawser.pack_series hawser.fold_samples hawser.note_ended
  - hawser.may_enqueue hawser.role_mark hawser.role_fault
  - hawser.leave_channels hawser.record_act hawser.record_dead_letters hawser.expire_audit hawser.write_edit hawser.is_json hawser.expire_originals
  - hawser.first_in_line hawser.why_not_queued hawser.why_not_served hawser.why_limited hawser.why_taken hawser.why_locked hawser.why_no_room
  - hawser.job_places
  - hawser.nats_auth_mode hawser.nats_option_boolean hawser.nats_option_integer hawser.nats_option_quoted
  - hawser.nats_option_shown hawser.nats_option_suggestion hawser.nats_option_table hawser.nats_options_jsonb
  - hawser.nats_server_options hawser.nats_server_options_check hawser.nats_server_options_typed
  - hawser.nats_server_options_violation
  - hawser_dblink.*
  0nbpxv hawser_fdw.*
  bx hawser_run.wrapper
  - hawser_run.settle
`);

/** Classification of a table or view for the attack. */
export interface Classified {
  /** Role and privileges, as in {@link callersOf}. */
  readonly grants: string;
  /** The rows that must be the same before and after, as a condition; undefined: none, because of `changes`. */
  readonly others?: string;
  /** The columns that must be the same; default: all. */
  readonly columns?: string;
  /** Its rows may go, but not change. */
  readonly mayGo?: string;
  /** Reason why all of its rows may change without an attack. */
  readonly changes?: string;
}

const beats = "Serve writes it from time to time";
const relays = "a relay writes it at each turn";
const victims = "t::text LIKE '%victim%'";
const victimsChannels =
  "channel_id IN (SELECT m.channel_id FROM hawser_peer_data.channels AS m WHERE m.channel_name LIKE '%victim%')";
const victimsChannelsInView = victimsChannels.replace("channel_id", "connection_key");
const victimsRows = "role LIKE 'victim%'";

/** All tables and views: who may do what to them, and which rows an attack must not change. */
export const relationsOf: Readonly<Record<string, Classified>> = {
  "hawser.audit_log": { grants: "b:SELECT p:SELECT v:SELECT", others: "login LIKE 'victim%'" },
  "hawser_data.audit_records": { grants: "", others: "login LIKE 'victim%'" },
  "hawser.bridge_lead": { grants: "b:SELECT v:SELECT", changes: beats },
  "hawser.bridge_work": { grants: "b:SELECT v:SELECT" },
  "hawser.conn_key_map": { grants: "p:INSERT p:SELECT p:UPDATE", others: victims },
  "hawser.conn_mess_number": { grants: "p:INSERT p:SELECT p:UPDATE", others: victimsChannelsInView },
  "hawser.conn_messages": { grants: "p:DELETE p:INSERT p:SELECT", others: victimsChannelsInView },
  "hawser.topic_addr": { grants: "p:DELETE p:INSERT p:SELECT p:UPDATE", others: victims },
  "hawser_data.cancellations": { grants: "", others: victimsRows },
  "hawser_peer_data.channels": { grants: "p:INSERT p:SELECT p:UPDATE", others: victims },
  "hawser_peer_data.cursors": { grants: "p:INSERT p:SELECT p:UPDATE", others: victimsChannels },
  "hawser_peer_data.stored_messages": { grants: "p:DELETE p:INSERT p:SELECT", others: victimsChannels },
  "hawser_peer_data.database_settings": { grants: "p:SELECT", others: "true" },
  "hawser.dead_letters": { grants: "b:SELECT p:SELECT", others: victimsRows },
  "hawser_data.dead_letters": { grants: "", others: victimsRows },
  "hawser_bridge_data.executor_login": { grants: "b:SELECT", others: "true" },
  "hawser_bridge_data.gateway_secret": { grants: "b:SELECT", others: "true" },
  "hawser_data.gateway_state": { grants: "", others: "true" },
  "hawser_bridge_data.gateways": { grants: "b:DELETE b:INSERT b:SELECT b:UPDATE", changes: beats },
  "hawser_peer_data.mesh_secret": { grants: "p:SELECT", others: "true" },
  "hawser_data.migrations": { grants: "", others: "true" },
  "hawser_bridge_data.nats_handlers": { grants: "b:SELECT", others: "function_schema = 'victim'" },
  "hawser_bridge_data.nats_server": { grants: "b:SELECT", others: "true" },
  "hawser_data.outbox": { grants: "", others: victimsRows, mayGo: "a relay truncates what is done" },
  "hawser_data.enqueue_keys": { grants: "", changes: "its rows are locks, which say nothing" },
  "hawser.later_messages": { grants: "b:SELECT p:SELECT v:SELECT", others: "destination LIKE 'victim%'" },
  "hawser_data.outbox_state": { grants: "", changes: relays },
  "hawser.outbox_status": { grants: "b:SELECT n:SELECT p:SELECT v:SELECT", changes: relays },
  "hawser_data.outbox_turns": { grants: "", changes: relays },
  "hawser_data.fences": { grants: "", changes: "its rows are locks, and peers raise the epochs in them" },
  "hawser_data.owners": { grants: "", others: "what LIKE '%victim%'" },
  "hawser_peer_data.peers": { grants: "p:SELECT", others: "name LIKE 'victim%'" },
  "hawser_data.queue": { grants: "", others: victimsRows },
  "hawser.original_payloads": { grants: "b:SELECT p:SELECT", others: "edited_by LIKE 'victim%'" },
  "hawser_data.original_payloads": { grants: "", others: "edited_by LIKE 'victim%'" },
  "hawser_data.results": { grants: "", others: victimsRows },
  "hawser_data.topic_settings": { grants: "", changes: "operators are members of hawser_peer" },
  "hawser_data.served_topics": { grants: "", others: victimsRows },
  "hawser_data.topic_starts": { grants: "", changes: "each take of a limited topic writes it" },
  "hawser_data.samples": { grants: "", changes: "any of the roles may take a sample" },
  "hawser_data.sampling": { grants: "", changes: "any of the roles may take a sample" },
  "hawser_data.ended_workers": { grants: "", others: victimsRows, mayGo: "a sample counts and deletes them" },
  "hawser_data.workers": { grants: "", others: victimsRows },
  "hawser_data.unique_keys": { grants: "", others: victimsRows },
  "hawser_data.flow_edges": { grants: "", changes: "only of roles that name messages of their own" },
  "hawser_data.flow_ends": {
    grants: "",
    changes: "the end of each message that others come after is in it for a moment",
  },
  "hawser_data.unique_ends": { grants: "", changes: "an end that is forgotten leaves a row that means nothing" },
  "hawser_data.unique_locks": { grants: "", changes: "its rows are locks, which say nothing" },
  "hawser_bridge_data.saved_messages": { grants: "b:DELETE b:INSERT b:SELECT", others: "t::text LIKE '%victim%'" },
  "hawser_peer_data.routes": { grants: "p:DELETE p:INSERT p:SELECT p:UPDATE", others: victims },
  "hawser.schedule_status": { grants: "b:SELECT n:SELECT p:SELECT v:SELECT", changes: "of schedules" },
  "hawser_data.schedules": {
    grants: "",
    others: victimsRows,
    columns:
      "role, name, cron, timezone, missed, kind, destination, payload, headers, key, to_stream, domain, to_all, revision, secret",
  },
  "hawser_peer_data.id_counter": { grants: "p:SELECT p:UPDATE", changes: "each new channel and topic takes a key" },
  "hawser.stream_status": { grants: "b:SELECT n:SELECT v:SELECT", changes: "of stream_subscriptions" },
  "hawser_bridge_data.stream_subscriptions": {
    grants: "b:SELECT b:UPDATE",
    others: "name LIKE 'victim%'",
    columns:
      "handler_id, name, stream, domain, filters, key_token, consumer, start, seek, stream_created, missing, paused",
  },
  "hawser_peer_data.listeners": {
    grants: "p:DELETE p:INSERT p:SELECT p:UPDATE",
    others: "topic LIKE 'victim%' OR listener_name LIKE 'victim%'",
  },
  "hawser_peer_data.topics": { grants: "p:INSERT p:SELECT", others: "topic LIKE 'victim%'" },
  "hawser_dblink.dblink_pkey_results": { grants: "", changes: "a type" },
};

/** Sequences, by which rows get their ids: who may draw from them. */
const sequencesOf: Readonly<Record<string, string>> = {
  "hawser_peer_data.stored_messages_id_seq": "p:USAGE",
  "hawser_data.audit_records_id_seq": "",
  "hawser_data.dead_letters_id_seq": "",
  "hawser_data.flow_ends_nth_seq": "",
  "hawser_data.gateway_state_unreached_ms_seq": "",
  "hawser_bridge_data.nats_handlers_id_seq": "",
  "hawser_data.outbox_id_seq": "",
  "hawser_data.outbox_state_asleep_seq": "",
  "hawser_data.outbox_state_segment_seq": "",
  "hawser_bridge_data.saved_messages_id_seq": "b:USAGE",
  "hawser_data.schedules_revision_seq": "",
};

/** The schemas. Anybody may use the validator of `CREATE SERVER`; subscribing makes wrappers in `hawser_run`. */
const schemasOf: Readonly<Record<string, string>> = {
  hawser: "b:USAGE x:USAGE n:USAGE p:USAGE v:USAGE",
  hawser_data: "",
  hawser_peer_data: "p:USAGE",
  hawser_bridge_data: "b:USAGE",
  hawser_dblink: "",
  hawser_fdw: "b:USAGE x:USAGE n:USAGE p:USAGE v:USAGE 0:USAGE",
  hawser_run: "b:USAGE x:USAGE n:CREATE n:USAGE",
};

/** Privileges with the roles' names, as {@link objectsOf} has them. */
function privilegesOf(grants: string): string[] {
  const pairs = grants === "" ? [] : grants.split(" ").map((pair) => pair.split(":") as [string, string]);
  return pairs.map(([letter, privilege]) => `${letters[letter]}:${privilege}`).sort();
}

/** Differences between the catalog and its classification: unclassified objects and unexpected privileges. */
export function surprises(functions: readonly SqlFunction[], objects: readonly SqlObject[]): string[] {
  const found: string[] = [];
  const sorted = (set: Iterable<string>): string => [...set].sort().join(" ") || "nobody";
  for (const { signature, classified, callers } of functions) {
    const wanted = callersOf.get(classified);
    if (wanted === undefined) {
      found.push(
        `the function ${signature} is not classified: add ${classified} to callersOf in test/faults/support/hostile/catalog.ts (now: ${sorted(callers)})`,
      );
    } else if (sorted(wanted) !== sorted(callers)) {
      found.push(`${signature} may be called by ${sorted(callers)}, and callersOf says ${sorted(wanted)}`);
    }
  }
  for (const { kind, name, privileges } of objects) {
    // A part of a table has no privileges of its own.
    const part = /^hawser_data\.(outbox(?:_turns)?|results)_\d+$/.exec(name);
    const wanted =
      kind === "schema"
        ? schemasOf[name]
        : kind === "type"
          ? /^hawser_run\.token_[0-9a-f]{16}$/.exec(name) && ""
          : part !== null
            ? ""
            : (relationsOf[name]?.grants ?? sequencesOf[name]);
    if (wanted === undefined || wanted === null) {
      found.push(`the ${kind} ${name} is not classified in catalog.ts (now: ${sorted(privileges)})`);
    } else if (sorted(privilegesOf(wanted)) !== sorted(privileges)) {
      found.push(`on ${name} are granted ${sorted(privileges)}, and catalog.ts says ${sorted(privilegesOf(wanted))}`);
    }
  }
  const present = new Set(functions.map(({ classified }) => classified));
  for (const name of callersOf.keys())
    if (!present.has(name)) found.push(`callersOf names ${name}, which is not there`);
  const names = new Set(objects.map(({ name }) => name));
  for (const name of [...Object.keys(relationsOf), ...Object.keys(sequencesOf), ...Object.keys(schemasOf)]) {
    if (!names.has(name)) found.push(`catalog.ts names ${name}, which is not there`);
  }
  return found;
}
