/** Import: moves the jobs that wait in the tables of another job queue, in the same database, to the queue of peers. */
import pg from "pg";
import { errorTable } from "../../../generated/ts/errors/errors.js";
import { checkHelloSourceTopic } from "../../../generated/ts/rules/peer/frames.js";
import { HawserError } from "../../foundation/errors/index.js";
import { DatabaseAddress, isServerError, openSession } from "../../foundation/postgres/index.js";
import { lockTimeoutMs, storeFailure } from "../../jobs-and-peers/store/index.js";
import { withCommandDatabase } from "./command-database.js";
import { checkOwners } from "./trusted-tables.js";

/** Job queues whose jobs can be moved. */
export const importSources = ["pg-boss", "graphile-worker"] as const;

export type ImportSource = (typeof importSources)[number];

/** Number of jobs that are moved by one statement. */
const batchJobs = 500;
/** Number of jobs of a queue that cannot be moved which are named, with the reason. */
const namedJobs = 10;
/** Number of characters of such a reason, and of the id. */
const shownCharacters = 300;

/** Job that stays, since no message can be made of it. */
interface RefusedJob {
  /** Id of the message that it would be; left out for all jobs of the queue. */
  readonly id?: string;
  readonly reason: string;
}

/** Jobs of one queue of the other library: a queue of pg-boss, or a task of graphile-worker. */
export interface ImportedQueue {
  readonly queue: string;
  /** Topic of the messages that the jobs become. */
  readonly topic: string;
  /** Number of jobs that wait, which are moved. */
  readonly waiting: number;
  /** Number of {@link waiting} jobs that are due later. */
  readonly later: number;
  /** Number of jobs that run, which stay. */
  readonly running: number;
  /** Number of jobs that have failed for good, which stay. */
  readonly failed: number;
  /** Number of jobs that stay because others wait for them, or they for others that run or have failed. */
  readonly held: number;
  /** Number of schedules, which stay. */
  readonly schedules: number;
  /** Number of {@link waiting} jobs that stay because no message can be made of them: known once they were to be moved. */
  refused: number;
  /** The first of them. */
  readonly refusals: RefusedJob[];
}

/** Options of {@link importJobs}. */
export interface ImportOptions {
  /** Schema of the other library. Default: `pgboss`, `graphile_worker`. */
  readonly schema?: string | undefined;
  /** Queues to move. Default: all. */
  readonly queues?: readonly string[] | undefined;
  /** Topics of the queues whose topic has not their name. */
  readonly topics?: ReadonlyMap<string, string> | undefined;
  /** False: only counts the jobs. */
  readonly move: boolean;
  /** Owner of the tables, if it is another role than the login, and may run its functions with the login's rights. */
  readonly owner?: string | undefined;
}

/** Tables of a library. The expressions are of a row `j`. */
interface Tables {
  readonly schema: string;
  readonly table: string;
  /** First release of the library with this column, and the others that are read. */
  readonly since: string;
  readonly column: string;
  /** Joined table with its condition. */
  readonly join?: readonly [table: string, condition: string];
  /** Other tables that are read. */
  readonly others: readonly string[];
  /** Table with a row `s` for each schedule, and the expression of its queue. */
  readonly schedules: readonly [table: string, queue: string];
  readonly queue: string;
  /** `waits`, `running`, `failed` or `held`; NULL for jobs that are over. */
  readonly state: (schema: string) => string;
  readonly payload: string;
  /** Ordering key: of the jobs with a key one runs at a time. */
  readonly key: (schema: string) => string;
  /** Key of which one job waits at a time, and whether a newer job replaces the one that waits. */
  readonly uniqueKey: string;
  readonly replaces: boolean;
  /** Priority, the highest first. */
  readonly priority: string;
  readonly due: string;
  readonly messageId: string;
  /** Order in which jobs of one key run. */
  readonly order: readonly [string, string, string];
}

const tablesOf: Readonly<Record<ImportSource, Tables>> = {
  "pg-boss": {
    schema: "pgboss",
    table: "job",
    since: "10",
    column: "policy",
    others: [],
    schedules: ["schedule", "s.name"],
    queue: "j.name",
    // Older releases have no flows, and no columns for them.
    state: (schema) => `
      CASE WHEN j.state::text IN ('completed', 'cancelled') THEN NULL
           WHEN j.state::text = 'active' THEN 'running'
           WHEN j.state::text = 'failed' THEN 'failed'
           WHEN (to_jsonb(j) ->> 'blocked')::boolean OR (to_jsonb(j) ->> 'blocking')::boolean THEN 'held'
           WHEN j.policy = 'key_strict_fifo' AND EXISTS (
             SELECT FROM ${schema}.job AS b
              WHERE b.name = j.name AND b.singleton_key = j.singleton_key AND b.state::text IN ('active', 'failed')
           ) THEN 'held'
           ELSE 'waits'
      END`,
    payload: "coalesce(j.data, 'null')",
    key: () => "CASE j.policy WHEN 'key_strict_fifo' THEN j.singleton_key END",
    uniqueKey:
      "CASE WHEN j.policy IN ('short', 'stately', 'exclusive') THEN coalesce(nullif(j.singleton_key, ''), j.name) END",
    replaces: false,
    priority: "j.priority",
    due: "j.start_after",
    messageId: "j.id::text",
    order: ["j.state::text <> 'retry'", "j.created_on", "j.id"],
  },
  "graphile-worker": {
    schema: "graphile_worker",
    table: "_private_jobs",
    since: "0.16",
    column: "task_id",
    join: ["_private_tasks", "t.id = j.task_id"],
    others: ["_private_job_queues"],
    schedules: ["_private_known_crontabs", "s.identifier"],
    queue: "t.identifier",
    state: (schema) => `
      CASE WHEN j.locked_at IS NOT NULL THEN 'running'
           WHEN j.attempts >= j.max_attempts THEN 'failed'
           WHEN EXISTS (
             SELECT FROM ${schema}._private_job_queues AS q WHERE q.id = j.job_queue_id AND q.locked_at IS NOT NULL
           ) THEN 'held'
           ELSE 'waits'
      END`,
    payload: "j.payload",
    key: (schema) => `(SELECT q.queue_name FROM ${schema}._private_job_queues AS q WHERE q.id = j.job_queue_id)`,
    uniqueKey: "j.key",
    replaces: true,
    priority: "-j.priority",
    due: "j.run_at",
    messageId: "'graphile-worker-' || j.id",
    order: ["j.priority", "j.run_at", "j.id"],
  },
};

/**
 * Moves the jobs that wait, in one transaction: they are deleted there, and enqueued here by the role of the connection.
 * A job keeps its payload, due time, priority (from -32768 to 32767) and its key: as ordering key, in place of the priority, where
 * jobs with a key run one at a time, and as unique key where one of them waits. Its id becomes the `messageId` of the message. A job
 * of which no message can be made stays, and so do those of a queue whose name cannot be that of a topic. The tables are
 * locked meanwhile: programs of the other library that fetch, complete or add jobs wait.
 *
 * @returns counts by queue, by name
 * @throws HawserError, with nothing moved: `invalid_argument` if the tables are not there or too old; `not_permitted` if
 * they are another role's than the login and {@link ImportOptions.owner}, or have its triggers; `store_failed`; as
 * {@link withCommandDatabase}
 */
export async function importJobs(
  databaseUrl: string | undefined,
  source: ImportSource,
  options: ImportOptions,
): Promise<ImportedQueue[]> {
  const action = `import the jobs of ${source}`;
  return await withCommandDatabase(databaseUrl, async () => {
    try {
      // The statements of a session of its own have no time limit.
      const { client } = await openSession(DatabaseAddress.of(databaseUrl), { lockTimeoutMs });
      try {
        await client.query("BEGIN");
        const counted = await run(client, source, options);
        await client.query("COMMIT");
        return counted;
      } finally {
        await client.end().catch(() => undefined);
      }
    } catch (cause) {
      throw storeFailure(action, cause);
    }
  });
}

async function run(client: pg.Client, source: ImportSource, options: ImportOptions): Promise<ImportedQueue[]> {
  const tables = tablesOf[source];
  const name = options.schema ?? tables.schema;
  const schema = pg.escapeIdentifier(name);
  const table = `${schema}.${tables.table}`;
  await checkTables(client, source, name);
  const hasSchedules = await isReadable(client, `${schema}.${tables.schedules[0]}`);
  const others = [
    ...tables.others,
    ...(tables.join?.slice(0, 1) ?? []),
    ...(hasSchedules ? [tables.schedules[0]] : []),
  ];
  const relations = [table, ...others.map((each) => `${schema}.${each}`)];
  // Before the locks: no role is to wait for those on relations of another one. Behind them: nothing changes any more.
  await checkOwners(client, relations, options.owner);
  await client.query(`LOCK TABLE ${table} IN ${options.move ? "SHARE ROW EXCLUSIVE" : "ACCESS SHARE"} MODE`);
  for (const other of relations.slice(1)) await client.query(`LOCK TABLE ${other} IN ACCESS SHARE MODE`);
  await checkOwners(client, relations, options.owner);

  const joined = tables.join === undefined ? [] : [`${schema}.${tables.join[0]} AS t`];
  const from = [`${table} AS j`, ...joined].join(", ");
  const condition = tables.join?.[1] ?? "true";
  const chosen = `${condition} AND ($1::text[] IS NULL OR ${tables.queue} = ANY ($1))`;
  const state = tables.state(schema);
  const [scheduled, queueOfSchedule] = tables.schedules;
  const { rows } = await client.query<Omit<ImportedQueue, "topic" | "refused" | "refusals">>(
    `SELECT c.queue, count(*) FILTER (WHERE c.state = 'waits')::integer AS waiting,
            count(*) FILTER (WHERE c.state = 'waits' AND c.due > now())::integer AS later,
            count(*) FILTER (WHERE c.state = 'running')::integer AS running,
            count(*) FILTER (WHERE c.state = 'failed')::integer AS failed,
            count(*) FILTER (WHERE c.state = 'held')::integer AS held,
            count(*) FILTER (WHERE c.state = 'schedule')::integer AS schedules
       FROM (SELECT ${tables.queue} AS queue, ${tables.due} AS due, ${state} AS state FROM ${from} WHERE ${chosen}
             ${
               hasSchedules
                 ? `UNION ALL SELECT ${queueOfSchedule}, NULL, 'schedule' FROM ${schema}.${scheduled} AS s
                     WHERE $1::text[] IS NULL OR ${queueOfSchedule} = ANY ($1)`
                 : ""
             }) AS c
      WHERE c.state IS NOT NULL GROUP BY c.queue ORDER BY c.queue`,
    [options.queues],
  );
  const counted = rows.map(
    (row): ImportedQueue => ({ ...row, topic: options.topics?.get(row.queue) ?? row.queue, refused: 0, refusals: [] }),
  );
  const byQueue = new Map(counted.map((each) => [each.queue, each]));
  for (const each of counted) refuseTopic(each);
  if (!options.move) return counted;

  const movable = counted.filter(({ waiting, refused }) => waiting > refused).map(({ queue }) => queue);
  const [order0, order1, order2] = tables.order;
  const orderedBy = `ORDER BY ${order0}, ${order1}, ${order2}`;
  // Of several jobs with a unique key, all are kept.
  await client.query(
    `DECLARE waiting NO SCROLL CURSOR FOR
     SELECT j.tableoid::integer AS part, j.ctid::text AS place, ${tables.queue} AS queue, ${tables.messageId} AS id,
            ${tables.key(schema)} IS NULL AND ${tables.uniqueKey} IS NOT NULL
              AND row_number() OVER (PARTITION BY ${tables.queue}, ${tables.uniqueKey} ${orderedBy}) = 1 AS "isUnique"
       FROM ${from} WHERE ${chosen} AND ${state} = 'waits' ${orderedBy}`,
    [movable],
  );
  const headers = `'{"content-type": "application/json"}'::jsonb`;
  const moving = `WITH chosen AS (
      SELECT c.* FROM unnest($1::oid[], $2::tid[], $3::boolean[]) WITH ORDINALITY AS c (part, place, is_unique, nth)
    ), gone AS (
      DELETE FROM ${table} AS j USING ${["chosen AS c", ...joined].join(", ")}
       WHERE j.ctid = c.place AND j.tableoid = c.part AND ${condition} AND ${tables.queue} = ANY ($4)
      RETURNING c.nth, c.is_unique, ${tables.queue} AS queue, ${tables.payload}::text AS payload, ${tables.key(schema)} AS key,
                ${tables.due} AS due, ${tables.uniqueKey} AS unique_key, ${tables.messageId} AS message_id,
                greatest(-32768, least(32767, ${tables.priority})) AS priority
    ), jobs AS (
      SELECT g.*, coalesce($5::jsonb ->> g.queue, g.queue) AS topic, CASE WHEN g.due > now() THEN g.due END AS deliver_at
        FROM gone AS g ORDER BY g.nth
    )
    SELECT count(CASE WHEN j.is_unique THEN hawser.enqueue_unique(
             j.topic, j.payload, j.unique_key, replaces => $6::boolean, headers => ${headers}, message_id => j.message_id,
             deliver_at => j.deliver_at, priority => j.priority
           ) ELSE hawser.enqueue(
             j.topic, j.payload, headers => ${headers}, key => j.key, message_id => j.message_id, deliver_at => j.deliver_at,
             priority => CASE WHEN j.key IS NULL THEN j.priority END
           ) END)
      FROM jobs AS j`;
  const topics = JSON.stringify(Object.fromEntries(options.topics ?? []));
  const move = async (jobs: readonly WaitingJob[]): Promise<void> => {
    await client.query("SAVEPOINT batch");
    try {
      await client.query(moving, [
        jobs.map(({ part }) => part),
        jobs.map(({ place }) => place),
        jobs.map(({ isUnique }) => isUnique),
        [...new Set(jobs.map(({ queue }) => queue))],
        topics,
        tables.replaces,
      ]);
      await client.query("RELEASE batch");
      return;
    } catch (error) {
      if (!isOfJob(error)) throw error;
      await client.query("ROLLBACK TO batch; RELEASE batch");
      if (jobs.length === 1) return refuse(byQueue.get(jobs[0]!.queue)!, jobs[0]!.id, error.message);
    }
    const middle = jobs.length >> 1;
    await move(jobs.slice(0, middle));
    await move(jobs.slice(middle));
  };
  for (;;) {
    const { rows: jobs } = await client.query<WaitingJob>(`FETCH ${batchJobs} FROM waiting`);
    if (jobs.length === 0) return counted;
    await move(jobs);
  }
}

/** Job that is to be moved, and where its row is. */
interface WaitingJob {
  readonly part: number;
  readonly place: string;
  readonly queue: string;
  readonly id: string;
  readonly isUnique: boolean;
}

/** Classes of SQLSTATEs of a value that no message can have: of data, and of a size. */
const classesOfJobs = ["22", "54"];

/** True if a statement failed because of one of its jobs. */
function isOfJob(error: unknown): error is pg.DatabaseError {
  if (!isServerError(error)) return false;
  const { code = "" } = error;
  return classesOfJobs.includes(code.slice(0, 2)) || code === errorTable.payload_too_large.sqlstate;
}

function refuse(queue: ImportedQueue, id: string, reason: string): void {
  queue.refused += 1;
  if (queue.refusals.length >= namedJobs) return;
  queue.refusals.push({ id: id.slice(0, shownCharacters), reason: reason.slice(0, shownCharacters) });
}

/** @throws HawserError `invalid_argument` if the tables are not there, or older than this module knows */
async function checkTables(client: pg.Client, source: ImportSource, schema: string): Promise<void> {
  const { table, since, column } = tablesOf[source];
  const sql = "SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass($1) AND a.attname = $2";
  const { rows } = await client.query(sql, [`${pg.escapeIdentifier(schema)}.${table}`, column]);
  if (rows.length > 0) return;
  throw new HawserError(
    "invalid_argument",
    `the database has no table ${schema}.${table} of ${source} ${since} or newer; name its schema with --schema, or upgrade ${source} first`,
  );
}

/** True if a table is there and may be read. */
async function isReadable(client: pg.Client, table: string): Promise<boolean> {
  const { rows } = await client.query(
    "SELECT FROM pg_class AS c WHERE c.oid = to_regclass($1) AND has_table_privilege(c.oid, 'SELECT')",
    [table],
  );
  return rows.length > 0;
}

/** Refuses all jobs of a queue if its topic cannot be one. */
function refuseTopic(queue: ImportedQueue): void {
  const violation = checkHelloSourceTopic(queue.topic);
  if (violation === undefined || queue.waiting === 0) return;
  queue.refused = queue.waiting;
  queue.refusals.push({ reason: `the topic "${queue.topic}" ${violation.rule}; name another one with --to` });
}
