/**
 * Every function of the queue beside another role: one that holds all the locks that it can get by enqueueing, has 10,000 messages
 * of each kind, or passes names of JavaScript's, `infinity` and NULL. Judged by what comes of the calls of others: an answer or an
 * error with a code, without a wait for a lock of the other role, from about as many rows as without it.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { outboxFunctionsSql } from "../../generated/ts/sql/outbox-schema.js";
import { queueFunctionsSql } from "../../generated/ts/sql/queue-schema.js";
import { callsOf } from "../faults/support/hostile/attack.js";
import { wrongError } from "../faults/support/hostile/audit.js";
import { functionsOf, type SqlFunction } from "../faults/support/hostile/catalog.js";
import { concrete, validValue } from "../faults/support/hostile/values.js";
import { type Login, login } from "../installation/support/logins.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { longTest } from "../support/limits.js";

/** Messages of each kind that the other role has. */
const many = 10_000;
/** Rows that a call may read, whatever the other role has. */
const fewRows = 2_500;

/** Call by an innocent role: of `bob`, who enqueues, or of `carol`, a worker of the topics. */
interface Case {
  readonly as: "bob" | "carol";
  readonly sql: string;
  /** What the call returns, as the text of its first row, if that must be something. */
  readonly gives?: RegExp;
}

/** Ids of rows, by the names that cases have for them. */
type Ids = Readonly<Record<string, string>>;

const bobs = (sql: string, gives?: RegExp): Case => ({ as: "bob", sql, ...(gives && { gives }) });
const carols = (sql: string, gives?: RegExp): Case => ({ as: "carol", sql, ...(gives && { gives }) });
/** Arguments that name a message that carol has. */
const running = "'run', '', '@bob', @running";
const runningList = "'{run}', '{\"\"}', '{@bob}', '{@running}'";
const aNumber = /^\d+$/;

/** Calls of each function, which is the first word of their names: `@name` stands for a name or an id. A new function needs one. */
const cases: Readonly<Record<string, Case>> = {
  enqueue: bobs("hawser.enqueue('t', 'x'::text, key => 'k')", aNumber),
  enqueue_batch: bobs("hawser.enqueue_batch('t', '{x,y}'::text[], key => 'k')", /^\{\d+,\d+\}$/),
  enqueue_after: bobs("hawser.enqueue_after('t', 'x'::text, '{@first}')", aNumber),
  enqueue_unique: bobs("hawser.enqueue_unique('t', 'x'::text, 'u')"),
  enqueue_peer: bobs("hawser.enqueue_peer('t', '{x}', NULL, 'k', NULL, NULL, NULL, false, NULL, NULL)", /^\{\d+\}$/),
  enqueue_after_peer: bobs(
    "hawser.enqueue_after_peer('t', 'x', '{@first}', false, NULL, NULL, NULL, NULL, false, NULL, NULL)",
    aNumber,
  ),
  enqueue_unique_peer: bobs("hawser.enqueue_unique_peer('t', 'x', 'u', false, false, NULL, NULL, NULL, NULL, NULL)"),
  schedule: bobs("hawser.schedule('bobs', '0 0 1 1 *', 't', 'x'::text)", /^true|false$/),
  run_schedule: bobs("hawser.run_schedule('bobs')", /^\d+$/),
  unschedule: bobs("hawser.unschedule('bobs')", /^true$/),
  cancel: bobs("hawser.cancel(@first)", /^cancelled$/),
  cancel_flow: bobs("hawser.cancel_flow(@first)", /@first,cancelled/),
  cancel_messages: bobs("hawser.cancel_messages('peer', 't', NULL, NULL, 0, 10)", /cancelled/),
  job: bobs("hawser.job(@kept)", /^\(waiting,/),
  keep_result: bobs("hawser.keep_result(@first, 60000)", /^false$/),
  queue_find: bobs("hawser.queue_find(@first, NULL, 10)", /@first/),
  jobs: bobs("hawser.jobs('t')", /^\(\d+,t,waiting,/),
  "jobs of a key": bobs("hawser.jobs('bobs', of_key => 'k')", /^\(\d+,bobs,waiting,k,/),
  first_jobs: bobs("hawser.first_jobs('bobs')", /^\(\d+,waiting,k,/),
  "first_jobs that are ready": bobs("hawser.first_jobs('t', is_ready => true)", /^\(\d+,waiting,/),
  job_message: bobs("hawser.job_message(@first)", /^\(t,/),
  count_jobs: bobs("hawser.count_jobs('bobs')", /^\(waiting,1\)/),
  why: bobs("hawser.why(@first)", /^\(@first,1,waits,t,/),
  "why of a topic": bobs("hawser.why(topic => 't')", /^\(\d+,1,waits,t,/),
  outbox_find: bobs("hawser.outbox_find(@first, NULL, 10)"),
  outbox_replay: bobs("hawser.outbox_replay(clock_timestamp())"),
  replay_page: bobs("hawser.replay_page(clock_timestamp(), NULL, NULL, false, 0, NULL, 10)"),
  retry_dead_letters: bobs("hawser.retry_dead_letters('{@letter}')", /@letter/),
  edit_dead_letter: bobs("hawser.edit_dead_letter(@letter, 'y'::text)", /^true$/),
  discard_dead_letters: bobs("hawser.discard_dead_letters('{@letter}')", /@letter/),
  take: carols("hawser.take(@worker, 100, 1000000, NULL, '{bobs}')", /^\(bobs,"",@bob,/),
  "take of a limited topic": carols("hawser.take(@worker, 100, 1000000, NULL, '{limited}')", /^\(limited,"",@bob,/),
  extend: carols("hawser.extend(@worker, true)"),
  rest: carols("hawser.rest(@worker)"),
  open_worker: carols("hawser.open_worker('another', '{bobs}', NULL, 60000, 1, NULL)", aNumber),
  serve_topics: carols("hawser.serve_topics(@worker, '{bobs,run}', '{}')", /^true$/),
  close_worker: carols("hawser.close_worker(@worker)"),
  end_workers: carols("hawser.end_workers('another')"),
  begin_unique: carols(`hawser.begin_unique(@worker, ${running})`),
  begin: carols(`hawser.begin(@worker, ${runningList})`, /@running/),
  resume_worker: carols(`hawser.resume_worker(@worker, 17, ${runningList})`, /@running/),
  done: carols(`hawser.done(${running}, false)`, /^true$/),
  done_batch: carols(`hawser.done_batch(${runningList}, false)`, /^true$/),
  retry: carols(`hawser.retry(@worker, ${running}, 1000, NULL)`, /@running/),
  give_up: carols(`hawser.give_up(@worker, ${running}, 'handler_failed', 'no', NULL, NULL)`, aNumber),
  give_back: carols(`hawser.give_back(@worker, ${runningList}, NULL)`, /@running/),
  end_cancelled: carols("hawser.end_cancelled(@worker, '{@running}')"),
  set_progress: carols(`hawser.set_progress(@worker, ${running}, '1')`, /^false$/),
  wait_for: carols("hawser.wait_for('{bobs}')"),
  stop_waiting: carols("hawser.stop_waiting('{bobs}')"),
  bring_due: carols("hawser.bring_due(NULL, NULL)"),
  due_schedules: carols("hawser.due_schedules(10)"),
  run_schedules: carols("hawser.run_schedules('[]')"),
  pause_topic: carols("hawser.pause_topic('bobs')"),
  paused_topics: carols("hawser.paused_topics('{bobs}')"),
  resume_topic: carols("hawser.resume_topic('bobs')"),
  limit_topic: carols("hawser.limit_topic('bobs', running => 5)", /^true$/),
  keep_results: carols("hawser.keep_results('bobs', 60000)"),
  reassign_queued: carols("hawser.reassign_queued('nobody', 'another', 10)", /^0$/),
  queue_places: carols("hawser.queue_places('{bobs}')", /@bob/),
  queue_backlog: carols("hawser.queue_backlog(100, '{bobs}')", /^\(bobs,/),
  outbox_undone: carols("hawser.outbox_undone(NULL, 10, NULL)"),
  backlog: carols("hawser.backlog(100)"),
  peer_status: carols("hawser.peer_status()"),
  topic_status: carols("hawser.topic_status()"),
  worker_status: carols("hawser.worker_status(p_topic => 'bobs')"),
  dead_letter_counts: carols("hawser.dead_letter_counts(100)"),
  take_sample: carols("hawser.take_sample()"),
  samples: carols("hawser.samples('topic', '{bobs}')"),
  running_peers: carols("hawser.running_peers('{w}')"),
  behind_sequences: carols("hawser.behind_sequences(false)"),
};

/** Calls that fail beside another role, and why: each is either to be mended, or says what its function is for. */
const knownFaults: Readonly<Record<"alone" | "reads" | "locks", Readonly<Record<string, string>>>> = {
  alone: {},
  locks: {},
  reads: {
    reassign_queued: "looks for rows of a listener in each topic",
    limit_topic: "a first limit gives each message of the topic its place",
    backlog: "counts what waits in each topic, up to its limit in each",
    peer_status: "counts what waits in each topic",
    take_sample: "counts what waits in each topic",
  },
};

/** Functions of peers that have work with what is enqueued. */
const ofPeersToo = [
  ...["backlog", "behind_sequences", "dead_letter_counts", "discard_dead_letters", "peer_status"],
  ...["retry_dead_letters", "running_peers"],
];

/** Names that are properties of every object of JavaScript. */
const names = ["constructor", "__proto__", "toString"];

let database: TestDatabase;
let operator: pg.Client;
let mallory: Login & AsyncDisposable;
const sessions = {} as Record<"bob" | "carol", pg.Client>;
let ids: Ids;
let functions: readonly SqlFunction[];
const undo: (() => Promise<unknown>)[] = [];

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  undo.push(() => client.end());
  return client;
}

beforeAll(async () => {
  database = await testDatabase();
  undo.push(() => database.drop());
  operator = await connected(database.url);
  const logins: Login[] = [];
  for (let n = 0; n < 3; n++) {
    const each = await login(database.url, "IN ROLE hawser_peer");
    undo.push(async () => await each[Symbol.asyncDispose]());
    logins.push(each);
  }
  const [bob, carol] = logins as [Login, Login];
  mallory = logins[2] as Login & AsyncDisposable;
  for (const [name, { url }] of [
    ["bob", bob],
    ["carol", carol],
  ] as const)
    sessions[name] = await connected(url);
  const all = await functionsOf(operator, new Map([["hawser_peer", carol.role]]));
  const ofQueue = new Set(
    [...`${queueFunctionsSql}${outboxFunctionsSql}`.matchAll(/^CREATE OR REPLACE FUNCTION hawser\.(\w+)\(/gm)].map(
      ([, name]) => name!,
    ),
  );
  for (const name of ofPeersToo) ofQueue.add(name);
  functions = all.filter(
    ({ schema, name, callers }) => schema === "hawser" && ofQueue.has(name) && callers.has("hawser_peer"),
  );

  const one = async (client: pg.Client, sql: string): Promise<string> =>
    (await client.query({ text: `SELECT (${sql})::text`, rowMode: "array" })).rows[0]![0];
  const { bob: b, carol: c } = sessions;
  const worker = await one(c, "hawser.open_worker('w', '{bobs,run,limited}', NULL, 600000, 100, NULL)");
  const run = await one(b, "hawser.enqueue('run', 'x'::text)");
  const dead = await one(b, "hawser.enqueue('run', 'x'::text)");
  await c.query(`SELECT hawser.take(${worker}, 10, 1000000, NULL, '{run}')`);
  const letter = await one(
    c,
    `hawser.give_up(${worker}, 'run', '', '${bob.role}', ${dead}, 'handler_failed', 'no', NULL, NULL)`,
  );
  const first = await one(b, "hawser.enqueue('t', 'x'::text)");
  const ofMallory = await connected(mallory.url);
  const before = await one(ofMallory, "hawser.enqueue('bobs', 'x'::text, key => 'k')");
  await b.query("SELECT hawser.enqueue('bobs', 'x'::text, key => 'k')");
  await c.query("SELECT hawser.limit_topic('limited', running_per_key => 1, key_header => 'tenant')");
  await ofMallory.query(`SELECT hawser.enqueue('limited', 'x'::text, headers => '{"tenant": "a"}')`);
  await c.query(`SELECT hawser.take(${worker}, 10, 1000000, NULL, '{limited}')`);
  await b.query(`SELECT hawser.enqueue('limited', 'x'::text, headers => '{"tenant": "a"}')`);
  await b.query("SELECT hawser.schedule('bobs', '0 0 1 1 *', 'bobs', 'x'::text)");
  await operator.query(
    "UPDATE hawser_data.schedules SET since = since - interval '1 min', next_at = now() + interval '1 day'",
  );
  await b.query("BEGIN");
  const kept = await one(b, "hawser.enqueue('t', 'x'::text)");
  await b.query(`SELECT hawser.keep_result(${kept}, 60000)`);
  await b.query("COMMIT");
  ids = { worker, running: run, letter, first, kept, before, bob: bob.role };
}, 60_000);
afterAll(async () => {
  for (const each of undo.reverse()) await each().catch(() => undefined);
});

const filled = (text: string): string => text.replace(/@(\w+)/g, (all, name: string) => ids[name] ?? all);

/** Results of a case, which is rolled back. */
interface Outcome {
  readonly code: string;
  readonly shown: string;
  readonly rows: number;
}

/** Rows of Hawser's tables that a session has read, of which Postgres counts some only for its transaction. */
async function rowsRead(client: pg.Client): Promise<number> {
  const { rows } = await client.query(
    `SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::int AS rows FROM pg_stat_xact_user_tables WHERE schemaname ~ '^hawser.*_data$'`,
  );
  return rows[0].rows;
}

/** Calls a function as the innocent role does, in a transaction that is rolled back. */
async function outcomeOf({ as, sql }: Case): Promise<Outcome> {
  const client = sessions[as];
  await client.query("BEGIN; SET LOCAL lock_timeout = 50");
  try {
    const before = await rowsRead(client);
    const { rows } = await client.query({ text: `SELECT (${filled(sql)})::text`, rowMode: "array" });
    return { code: "none", shown: rows.slice(0, 1_000).join("\n"), rows: (await rowsRead(client)) - before };
  } catch (error) {
    return { code: (error as pg.DatabaseError).code ?? `${error}`, shown: (error as Error).message, rows: 0 };
  } finally {
    await client.query("ROLLBACK");
  }
}

/** Differences between the cases' outcomes and what the innocent may expect. */
async function wrongOutcomes(what: keyof typeof knownFaults): Promise<string[]> {
  const wrong: string[] = [];
  const known = new Set(Object.keys(knownFaults[what]));
  for (const [name, each] of Object.entries(cases)) {
    const { code, shown, rows } = await outcomeOf(each);
    const isWrong =
      code !== "none" ||
      rows > fewRows ||
      (each.gives !== undefined && !new RegExp(filled(each.gives.source), "m").test(shown));
    if (isWrong !== known.has(name)) {
      wrong.push(
        isWrong
          ? `${name}: ${code} ${shown.slice(0, 300)}; ${rows} rows read`
          : `${name} is known to fail, and does not`,
      );
    }
  }
  return wrong;
}

it("has a case for each function of the queue that a login may call", async () => {
  expect([...new Set(functions.map(({ name }) => name))].sort()).toEqual(
    [...new Set(Object.keys(cases).map((name) => name.split(" ")[0]))].sort(),
  );
  expect(await wrongOutcomes("alone")).toEqual([]);
});

it(
  "no function waits for a lock that another role gets by enqueueing, cancelling or scheduling",
  longTest,
  async () => {
    const holder = await connected(mallory.url);
    const own = await holder.query("SELECT hawser.enqueue('t', 'x'::text, key => 'k') AS id");
    const { id } = own.rows[0];
    await holder.query("SELECT hawser.schedule('bobs', '0 0 1 1 *', 't', 'x'::text)");

    await holder.query("BEGIN");
    for (const statement of [
      "SELECT hawser.enqueue('t', 'x'::text, key => 'k'), hawser.enqueue('bobs', 'x'::text, key => 'k')",
      "SELECT hawser.enqueue('t', 'x'::text, to_all => true)",
      "SELECT hawser.enqueue_batch('t', '{x,y}'::text[], key => 'k')",
      "SELECT hawser.enqueue_unique('t', 'x'::text, 'u'), hawser.enqueue_unique('bobs', 'x'::text, 'u')",
      "SELECT hawser.enqueue('t', 'x'::text, deliver_at => clock_timestamp() + interval '1 hour')",
      `SELECT hawser.enqueue_after('t', 'x'::text, '{${id}}'), hawser.enqueue_after('bobs', 'x'::text, '{${id}}', key => 'k')`,
      filled("SELECT hawser.enqueue_after('t', 'x'::text, '{@before}')"),
      `SELECT hawser.keep_result(hawser.enqueue('t', 'x'::text), 60000), hawser.job(${id})`,
      "SELECT hawser.schedule('another', '0 0 1 1 *', 't', 'x'::text), hawser.unschedule('bobs')",
      `SELECT hawser.cancel(${id})`,
      "SELECT hawser.cancel_messages('peer', 't', NULL, NULL, 0, 100)",
    ]) {
      await holder.query(statement);
    }
    const wrong = await wrongOutcomes("locks");
    await holder.query("ROLLBACK");
    expect(wrong).toEqual([]);
  },
);

it("a call reads as many rows beside 10,000 of each kind of another role", longTest, async () => {
  const client = await connected(mallory.url);
  const batch = `array_fill('x'::text, ARRAY[${many}])`;
  for (const rest of ["", ", key => 'k'", ", deliver_at => clock_timestamp() + interval '1 hour'"]) {
    await client.query(
      `SELECT hawser.enqueue_batch('t', ${batch}${rest}), hawser.enqueue_batch('bobs', ${batch}${rest})`,
    );
  }
  await client.query(
    `SELECT count(hawser.enqueue('of-mallory-' || n, 'x'::text)), count(hawser.enqueue_unique('t', 'x'::text, 'u' || n)) FROM generate_series(1, ${many}) AS n`,
  );
  await client.query(`SELECT hawser.enqueue('t', 'x'::text, deliver_at => clock_timestamp() - interval '1 hour')`);
  await operator.query(
    `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, message_id, role)
     SELECT 'outbox', 'peer', 'bobs', 'x', 'handler_failed', 'no', 1, n, $1 FROM generate_series(1, ${many}) AS n`,
    [mallory.role],
  );
  await operator.query("ANALYZE");
  expect(await wrongOutcomes("reads")).toEqual([]);
});

it("no name of JavaScript's, infinity or NULL ends the work for others", longTest, async () => {
  const client = await connected(mallory.url);
  await client.query("SET lock_timeout = '10s'");
  const wrong: string[] = [];
  const forged = (name: string, type: string): string[] => {
    if (type === "timestamp with time zone") return ["'infinity'", "'-infinity'"];
    if (type === "text") return names.map((each) => `'${each}'`);
    if (type === "text[]") return [`ARRAY['${names.join("', '")}']`];
    if (type === "jsonb") {
      const headers = JSON.stringify(Object.fromEntries(names.map((each) => [`${each}`, each])));
      return [`'${headers}'`, `'{"__proto__": ["a", "b"]}'`, `'["${name}"]'`];
    }
    return [];
  };
  // The forms of a function for other types of payload share its checks of all else.
  const forms = new Map(functions.map((each) => [each.name, each]));
  for (const each of forms.values()) {
    const options = { role: "hawser_peer" as const, ids: { numbers: [], texts: [] }, random: undefined as never };
    const valid = each.parameters.map((parameter) => validValue(parameter, each, "hawser_peer").sql);
    const calls = [callsOf(each, { ...options, valuesPerArgument: 0, pairs: 0 })[0]!.sql];
    for (const [nth, { name, type }] of each.parameters.entries()) {
      for (const value of ["NULL", ...forged(name, concrete(type))]) {
        const values = each.parameters.map(
          (parameter, at) => `(${at === nth ? value : valid[at]})::${concrete(parameter.type)}`,
        );
        calls.push(`SELECT hawser.${each.name}(${values.join(", ")})`);
      }
    }
    for (const sql of calls) {
      const error = await client.query(sql).then(
        () => undefined,
        (reason: pg.DatabaseError) => reason,
      );
      const fault = error && wrongError(sql, error);
      if (fault !== undefined) wrong.push(`${sql}: ${fault}`);
    }
  }
  expect(wrong).toEqual([]);
  // Later messages and schedules of others come, and their messages can be taken.
  const { bob, carol } = sessions;
  await bob.query(
    "SELECT hawser.enqueue('bobs', 'due'::text, deliver_at => clock_timestamp() + interval '1 microsecond', priority => 9)",
  );
  const { rows } = await carol.query("SELECT problem FROM hawser.bring_due(NULL, NULL)");
  expect(rows).toEqual([{ problem: null }]);
  const taken = await carol.query(
    `SELECT convert_from(payload, 'UTF8') AS text FROM hawser.take(${ids["worker"]}, 10, 1000000, NULL, '{bobs}') WHERE role = $1`,
    [ids["bob"]],
  );
  expect(taken.rows).toContainEqual({ text: "due" });
});
