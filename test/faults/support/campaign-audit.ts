/**
 * What the campaign counts: the table `sent`, which the transactions write that enqueue, against `done`, which those write that handle.
 */
import { onServer, rowsOf } from "../../support/on-server.js";

/** Makes the tables. No constraint but on what is sent: what comes twice is to be seen. */
export async function createLedger(url: string): Promise<void> {
  await onServer(
    url,
    `CREATE TABLE sent (
       nth bigserial PRIMARY KEY, id uuid UNIQUE, kind text, topic text, key text, due timestamptz,
       cancelled boolean DEFAULT false, confirmed boolean DEFAULT true, at timestamptz DEFAULT clock_timestamp()
     )`,
    `CREATE TABLE done (
       nth bigserial PRIMARY KEY, consumer text, id uuid, place text, peer text, attempt integer, at timestamptz DEFAULT clock_timestamp()
     )`,
    "CREATE INDEX ON done (id)",
    "CREATE TABLE ran (nth bigserial PRIMARY KEY, name text, time timestamptz, topic text)",
  );
}

/** Consumers of each kind of message: a durable listener has a copy of each message for all, also while another has its channels. */
const consumers = `(VALUES ('jobs', 'jobs'), ('batch', 'jobs'), ('later', 'jobs'), ('ask', 'jobs'), ('ask', 'answers'), ('readings', 'readings'),
  ('work', 'work'), ('direct', 'direct'), ('shared', 'jobs'), ('news', 'news red'), ('news', 'news blue'), ('news', 'news solo-1'), ('news', 'news solo-2'))
  AS c (kind, consumer)`;

/** Messages that have had no effect. */
const lostSql = `
  SELECT s.nth, s.id::text, s.kind, s.key, c.consumer
    FROM sent AS s JOIN ${consumers} ON c.kind = s.kind
   WHERE s.confirmed AND NOT s.cancelled AND NOT EXISTS (SELECT FROM done AS d WHERE d.id = s.id AND d.consumer = c.consumer)
   ORDER BY s.nth`;

/** Effects beyond the first. Direct messages that were sent over a failover may come again with a new number, as is documented. */
const twiceSql = `
  SELECT d.consumer, d.id::text, s.kind, s.key, s.nth, array_agg(concat_ws(' ', d.nth, d.peer, d.place, 'attempt', d.attempt) ORDER BY d.nth) AS effects
    FROM done AS d LEFT JOIN sent AS s ON s.id = d.id
   GROUP BY d.consumer, d.id, s.kind, s.key, s.nth, s.at
  HAVING count(*) > 1
     AND NOT (s.kind IN ('direct', 'shared') AND EXISTS (SELECT FROM failovers AS f WHERE f.ended > s.at AND f.begun < max(d.at)))`;

/** Effects of what is not committed, was cancelled, or was for another consumer; and before they were due. */
const straySql = `
  SELECT d.consumer, d.id::text, d.peer, d.place, s.kind, s.cancelled
    FROM done AS d LEFT JOIN sent AS s ON s.id = d.id
   WHERE s.id IS NULL OR s.cancelled OR d.at < s.due
      OR NOT EXISTS (SELECT FROM ${consumers} WHERE c.kind = s.kind AND c.consumer = d.consumer)`;

/** First effects before one of an earlier message of the key. */
const lateSql = `
  SELECT * FROM (
    SELECT d.consumer, s.key, s.nth, d.nth AS effect, d.peer, d.place,
           lag(s.nth) OVER (PARTITION BY d.consumer, s.key ORDER BY d.nth) AS behind
      FROM (SELECT consumer, id, min(nth) AS nth, (array_agg(peer ORDER BY nth))[1] AS peer, (array_agg(place ORDER BY nth))[1] AS place
              FROM done GROUP BY consumer, id) AS d
      JOIN sent AS s ON s.id = d.id
     WHERE s.key IS NOT NULL
  ) AS o
   WHERE o.nth < o.behind`;

/** Occurrences of a schedule that ran twice, and those that are missing of the schedule that misses none. */
const schedulesSql = `
  SELECT r.name, r.time::text, count(*)::integer AS times FROM ran AS r GROUP BY r.name, r.time HAVING count(*) > 1
  UNION ALL
  SELECT l.name, g.time::text, 0 FROM last_occurrences AS l
   CROSS JOIN LATERAL generate_series((SELECT min(r.time) FROM ran AS r WHERE r.name = l.name), l.at, interval '1 s') AS g (time)
   WHERE l.name = 'all' AND NOT EXISTS (SELECT FROM ran AS r WHERE r.name = l.name AND r.time = g.time)
  UNION ALL
  SELECT l.name, l.at::text, 0 FROM last_occurrences AS l
   WHERE NOT EXISTS (SELECT FROM ran AS r WHERE r.name = l.name AND r.time = l.at)`;

const auditSql = {
  lost: lostSql,
  twice: twiceSql,
  stray: straySql,
  late: lateSql,
  schedules: schedulesSql,
  deadLetters:
    "SELECT origin, topic, error_code, error_message, convert_from(payload, 'UTF8') FROM hawser_data.dead_letters",
};

type Rows = Record<string, unknown>[];

/** Everything that is wrong; all lists are empty if nothing is. */
export async function auditLedger(url: string): Promise<Record<keyof typeof auditSql, Rows>> {
  const found: Partial<Record<keyof typeof auditSql, Rows>> = {};
  for (const [name, sql] of Object.entries(auditSql)) found[name as keyof typeof auditSql] = await rowsOf(url, sql);
  return found as Record<keyof typeof auditSql, Rows>;
}

/** Result of {@link auditLedger} without faults. */
export const nothingWrong = { lost: [], twice: [], stray: [], late: [], schedules: [], deadLetters: [] };

/** What has not had its effect yet. */
export async function unfinished(url: string): Promise<number> {
  const [row] = await rowsOf(
    url,
    `SELECT (SELECT count(*) FROM (${lostSql}) AS l)::float8 + (SELECT count(*) FROM (${schedulesSql}) AS s WHERE s.times = 0)
          + (SELECT count(*) FROM hawser_data.stored_messages) + (SELECT count(*) FROM hawser_data.parked_messages) AS n`,
  );
  return row!["n"] as number;
}

/** Counts of kinds and effects, for the report of a run. */
export async function counts(url: string): Promise<string> {
  const sent = await rowsOf(
    url,
    "SELECT kind, count(*)::integer AS n, count(*) FILTER (WHERE cancelled)::integer AS cancelled, count(*) FILTER (WHERE NOT confirmed)::integer AS unconfirmed FROM sent GROUP BY kind ORDER BY kind",
  );
  const done = await rowsOf(
    url,
    `SELECT consumer, count(*)::integer AS n, count(*) FILTER (WHERE attempt > 1)::integer AS "afterRetries" FROM done GROUP BY consumer
     UNION ALL SELECT 'schedule ' || name, count(*)::integer, 0 FROM ran GROUP BY name ORDER BY 1`,
  );
  return JSON.stringify({ sent, done });
}

/** Where Hawser still has messages, by their ids in payloads: for each table the channel or destination of what was found. */
export async function whereabouts(url: string, ids: readonly string[]): Promise<Rows> {
  const tables = await rowsOf(
    url,
    `SELECT a.attrelid::regclass::text AS name FROM pg_attribute AS a JOIN pg_class AS t ON t.oid = a.attrelid AND t.relkind = 'r'
      WHERE t.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace) AND a.attname = 'payload' AND a.atttypid = 'bytea'::regtype`,
  );
  const found: Rows = [];
  for (const { name } of tables) {
    const list = ids.map((id) => `'${id}'`).join(", ");
    const sql = `SELECT '${name}' AS "table", i.id, to_jsonb(t) - 'payload' - 'headers' AS row FROM ${name} AS t
                   JOIN unnest(ARRAY[${list}]::text[]) AS i (id) ON position(convert_to(i.id, 'UTF8') IN t.payload) > 0`;
    found.push(...(await rowsOf(url, sql)));
  }
  return found;
}
