/** Import: moves the jobs that wait in the tables of another job queue, in the same database, to the queue of peers. */
import pg from "pg";
import { checkHelloSourceTopic } from "../../generated/ts/rules/peer/frames.js";
import { HawserError } from "../errors/index.js";
import { DatabaseAddress, openSession } from "../postgres/index.js";
import { lockTimeoutMs, storeFailure } from "../store/index.js";
import { withCommandDatabase } from "./command-database.js";

/** Job queues whose jobs can be moved. */
export const importSources = ["pg-boss", "graphile-worker"] as const;

export type ImportSource = (typeof importSources)[number];

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
 * jobs with a key run one at a time, and as unique key where one of them waits. Its id becomes the id of the message. The tables are locked meanwhile: programs of
 * the other library that fetch, complete or add jobs wait.
 *
 * @returns counts by queue, by name
 * @throws HawserError, with nothing moved: `invalid_argument` if the tables are not there or too old, or if the name of
 * a queue cannot be that of a topic; `store_failed`, also if a payload is larger than a message can be; as
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
  await checkTables(client, source, name);
  const table = `${schema}.${tables.table}`;
  if (options.move) await client.query(`LOCK TABLE ${table} IN SHARE ROW EXCLUSIVE MODE`);
  const state = tables.state(schema);
  const joined = tables.join === undefined ? [] : [`${schema}.${tables.join[0]} AS t`];
  const chosen = `${tables.join?.[1] ?? "true"} AND ($1::text[] IS NULL OR ${tables.queue} = ANY ($1))`;
  const { rows } = await client.query<Omit<ImportedQueue, "topic">>(
    `SELECT c.queue, count(*) FILTER (WHERE c.state = 'waits')::integer AS waiting,
            count(*) FILTER (WHERE c.state = 'waits' AND c.due > now())::integer AS later,
            count(*) FILTER (WHERE c.state = 'running')::integer AS running,
            count(*) FILTER (WHERE c.state = 'failed')::integer AS failed,
            count(*) FILTER (WHERE c.state = 'held')::integer AS held
       FROM (SELECT ${tables.queue} AS queue, ${tables.due} AS due, ${state} AS state
               FROM ${[`${table} AS j`, ...joined].join(", ")} WHERE ${chosen}) AS c
      WHERE c.state IS NOT NULL GROUP BY c.queue ORDER BY c.queue`,
    [options.queues],
  );
  const counted = rows.map((row) => ({ ...row, topic: options.topics?.get(row.queue) ?? row.queue }));
  for (const { queue, topic, waiting } of counted) if (waiting > 0) checkTopic(queue, topic);
  if (!options.move) return counted;
  const headers = `'{"content-type": "application/json"}'::jsonb`;
  const using = joined.length === 0 ? "" : `USING ${joined.join(", ")}`;
  await client.query(
    `WITH gone AS (
       DELETE FROM ${table} AS j ${using} WHERE ${chosen} AND ${state} = 'waits'
       RETURNING ${tables.queue} AS queue, ${tables.payload}::text AS payload, ${tables.key(schema)} AS key, ${tables.due} AS due,
                 ${tables.uniqueKey} AS unique_key, greatest(-32768, least(32767, ${tables.priority})) AS priority,
                 ${tables.messageId} AS message_id, ${tables.order.map((expression, at) => `${expression} AS order${at}`).join(", ")}
     ), jobs AS (
       SELECT g.*, coalesce($2::jsonb ->> g.queue, g.queue) AS topic, CASE WHEN g.due > now() THEN g.due END AS deliver_at,
              -- Of several, all are kept.
              g.key IS NULL AND g.unique_key IS NOT NULL
                AND row_number() OVER (PARTITION BY g.queue, g.unique_key ORDER BY order0, order1, order2) = 1 AS is_unique
         FROM gone AS g
     )
     SELECT count(CASE WHEN j.is_unique THEN hawser.enqueue_unique(
              j.topic, j.payload, j.unique_key, replaces => $3::boolean, headers => ${headers}, message_id => j.message_id,
              deliver_at => j.deliver_at, priority => j.priority
            ) ELSE hawser.enqueue(
              j.topic, j.payload, headers => ${headers}, key => j.key, message_id => j.message_id, deliver_at => j.deliver_at,
              priority => CASE WHEN j.key IS NULL THEN j.priority END
            ) END)
       FROM (SELECT * FROM jobs ORDER BY order0, order1, order2) AS j`,
    [options.queues, JSON.stringify(Object.fromEntries(options.topics ?? [])), tables.replaces],
  );
  return counted;
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

/** @throws HawserError `invalid_argument` if the topic cannot be one */
function checkTopic(queue: string, topic: string): void {
  const violation = checkHelloSourceTopic(topic);
  if (violation === undefined) return;
  throw new HawserError(
    "invalid_argument",
    `the jobs of "${queue}" cannot go to the topic "${topic}": it ${violation.rule}; name another one with --topic`,
  );
}
