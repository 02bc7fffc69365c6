/**
 * What the campaign looks at beside the ledger: its schedules, dead letters, and where messages are that have had no effect.
 */
import { rowsOf } from "../../support/on-server.js";
import { audit, type Findings, readDone, readSent, unfinished } from "./ledger.js";

/** The tables of the campaign beside those of the ledger. */
export const campaignTables = [
  "CREATE TABLE ran (nth bigserial PRIMARY KEY, name text, time timestamptz, topic text)",
  "CREATE TABLE failovers (begun timestamptz, ended timestamptz)",
  "CREATE TABLE last_occurrences (name text, at timestamptz)",
  // For whom each copy of a message for all listeners was made, also if another one takes over.
  "CREATE TABLE copies (id bigint PRIMARY KEY, recipient text)",
  `CREATE FUNCTION note_copy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
   BEGIN
     INSERT INTO public.copies VALUES (new.id, ltrim(new.recipient, '@#')) ON CONFLICT DO NOTHING;
     RETURN NULL;
   END $$`,
  `CREATE TRIGGER note_copy AFTER INSERT ON hawser_data.queue FOR EACH ROW
   WHEN (new.to_all AND new.recipient <> '') EXECUTE FUNCTION note_copy()`,
];

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

/** Direct messages that were sent over a failover may come again with a new number, as is documented. */
const notExcusedSql = `
  NOT EXISTS (
    SELECT FROM sent AS s JOIN failovers AS f ON f.ended > s.at AND f.begun < d.at
     WHERE s.id = d.id AND s.kind IN ('direct', 'shared')
       AND EXISTS (SELECT FROM done AS o WHERE o.id = d.id AND o.consumer = d.consumer AND o.nth < d.nth)
  )`;

/** Everything that is wrong. */
export interface CampaignFindings extends Findings {
  readonly schedules: readonly string[];
  readonly deadLetters: readonly string[];
}

export async function auditCampaign(url: string): Promise<CampaignFindings> {
  const shown = async (sql: string): Promise<string[]> => (await rowsOf(url, sql)).map((row) => JSON.stringify(row));
  return {
    ...audit(await readSent(url), await readDone(url, notExcusedSql)),
    schedules: await shown(schedulesSql),
    deadLetters: await shown(
      "SELECT origin, topic, error_code, error_message, convert_from(payload, 'UTF8') FROM hawser_data.dead_letters",
    ),
  };
}

/** What has not had its effect yet. */
export async function left(url: string): Promise<number> {
  const [row] = await rowsOf(
    url,
    `SELECT (SELECT count(*) FROM (${schedulesSql}) AS s WHERE s.times = 0) + (SELECT count(*) FROM hawser_peer_data.stored_messages) AS n`,
  );
  return Number(row!["n"]) + (await unfinished(url));
}

/** Counts of kinds and effects, for the report of a run. */
export async function counts(url: string): Promise<string> {
  const rows = await rowsOf(
    url,
    `SELECT 'sent: ' || kind || ' ' || outcome AS what, count(*)::integer AS n FROM sent GROUP BY kind, outcome
     UNION ALL SELECT 'done: ' || consumer, count(*)::integer FROM done GROUP BY consumer
     UNION ALL SELECT 'schedule ' || name, count(*)::integer FROM ran GROUP BY name ORDER BY what`,
  );
  return rows.map(({ what, n }) => `${what} ${n}`).join(", ");
}

/** Where Hawser still has messages, by their ids in payloads: for each table the channel or destination of what was found. */
export async function whereabouts(url: string, ids: readonly string[]): Promise<Record<string, unknown>[]> {
  const tables = await rowsOf(
    url,
    `SELECT a.attrelid::regclass::text AS name FROM pg_attribute AS a JOIN pg_class AS t ON t.oid = a.attrelid AND t.relkind = 'r'
      WHERE t.relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND a.attname = 'payload' AND a.atttypid = 'bytea'::regtype`,
  );
  const found: Record<string, unknown>[] = [];
  for (const { name } of tables) {
    const list = ids.map((id) => `'${id}'`).join(", ");
    const sql = `SELECT '${name}' AS "table", i.id, to_jsonb(t) - 'payload' - 'headers' AS row FROM ${name} AS t
                   JOIN unnest(ARRAY[${list}]::text[]) AS i (id) ON position(convert_to(i.id, 'UTF8') IN t.payload) > 0`;
    found.push(...(await rowsOf(url, sql)));
  }
  return found;
}

/** What may hold up the messages that are left: the first ones, the workers, and the transactions that are open. */
export async function standstill(url: string): Promise<string> {
  const first =
    "SELECT topic, recipient, key, role, id, worker, due_at < clock_timestamp() AS is_due, attempts FROM hawser_data.queue ORDER BY id LIMIT 40";
  const workers = "SELECT id, name, topics, gone_at, beat_at, clock_timestamp() AS now FROM hawser_data.workers";
  const open =
    "SELECT pid, application_name, state, wait_event, xact_start, left(query, 80) AS query FROM pg_stat_activity WHERE xact_start IS NOT NULL";
  const locks = "SELECT pid, locktype, relation::regclass::text, mode, granted FROM pg_locks WHERE NOT granted";
  const found = await Promise.all([first, workers, open, locks].map((sql) => rowsOf(url, sql)));
  return found
    .flat()
    .map((row) => JSON.stringify(row))
    .join("\n");
}
