/**
 * A busy installation: 200,000 messages in line in 500 topics, 50,000 dead letters of 300 causes, 100 peers, 20 streams, 50
 * schedules, and a day of samples. What a number of the page depends on is made by the functions that make it in operation; only
 * the mass of messages, dead letters and samples is inserted.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { sqlDatabase } from "../../faults/support/sql-database.js";
import { login } from "../../installation/support/logins.js";
import type { TestDatabase } from "../../support/database.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { startProgram } from "../../support/program.js";

export const topics = 500;
const waiting = 200_000;
const deadLetters = 50_000;
const causes = 300;
export const peers = 100;
export const streams = 20;
export const schedules = 50;

/** Peers that run; of the others some have stopped, and some have ended uncleanly. */
export const runningPeers = 80;
export const uncleanPeers = 5;
/** Topics that a peer serves. The last topics are served by nobody. */
const servedTopics = 450;
const streamMessages = 100;

export interface FullWorld extends AsyncDisposable {
  readonly database: TestDatabase;
  rows<Row extends object = Record<string, unknown>>(sql: string, values?: unknown[]): Promise<Row[]>;
  /** Only value of the only row. */
  value<T>(sql: string, values?: unknown[]): Promise<T>;
}

/** Name of a topic, from 1. */
export const topicName = (nth: number): string => `shop.orders-${String(nth).padStart(3, "0")}`;
const topicSql = (nth: string): string => `('shop.orders-' || lpad((${nth})::text, 3, '0'))`;
const peerSql = (nth: string): string => `('worker-' || lpad((${nth})::text, 3, '0'))`;
export const peerName = (nth: number): string => `worker-${String(nth).padStart(3, "0")}`;
/** Cause without digits, which the page would replace. */
const causeSql = (nth: string): string => `translate((${nth})::text, '0123456789', 'abcdefghij')`;

/** Word of a cause, from 0. */
export const causeName = (nth: number): string =>
  String(100 + nth).replace(/\d/g, (digit) => "abcdefghij".charAt(Number(digit)));

/** Makes one. It takes about a minute. */
export async function fullWorld(): Promise<FullWorld> {
  const undo: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const each of undo.splice(0).reverse()) await each();
  };
  const kept = <T extends AsyncDisposable>(made: T): T => {
    undo.push(async () => await made[Symbol.asyncDispose]());
    return made;
  };
  const session = async (databaseUrl: string): Promise<pg.Client> => {
    const made = new pg.Client({ connectionString: databaseUrl });
    await made.connect();
    undo.push(() => made.end());
    return made;
  };
  try {
    const nats = kept(await startNatsServer({ jetStream: true }));
    const database = kept(await sqlDatabase(nats.url));
    const roles = [kept(await login(database.url)), kept(await login(database.url))].map(({ role }) => role);
    const client = await session(database.url);
    const rows = async <Row extends object>(sql: string, values: unknown[] = []): Promise<Row[]> =>
      (await client.query<Row>(sql, values)).rows;
    const value = async <T>(sql: string, values: unknown[] = []): Promise<T> =>
      Object.values((await rows(sql, values))[0]!)[0] as T;
    const serve = startProgram("src/operating/cli/main.ts", ["serve", "--json", "--listen", "127.0.0.1:0"], {
      env: { HAWSER_DATABASE_URL: database.url },
      stdin: "ignore",
    });
    undo.push(() => {
      serve.child.kill("SIGKILL");
      return serve.ended;
    });
    await serve.firstLine;
    await plantStreams(rows);
    // Its session is the life of the peers that run.
    const living = await session(database.url);
    await plantPeers(living, database.url);
    const beats = setInterval(() => void living.query(beatSql), 60_000);
    undo.push(async () => clearInterval(beats));
    await plantQueue(client, roles);
    await plantStored(client);
    await plantDeadLetters(client, roles);
    await plantRest(client);
    await eventually("the streams are read", async () => {
      const done = "SELECT count(*)::integer FROM hawser.stream_status WHERE done_to IS NOT NULL";
      return (await value<number>(done)) === streams;
    });
    await client.query("VACUUM ANALYZE");
    return { database, rows, value, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Workers say that they go on. */
const beatSql = "UPDATE hawser_data.workers SET beat_at = clock_timestamp()";

type Rows = FullWorld["rows"];

async function plantStreams(rows: Rows): Promise<void> {
  await rows(`
    CREATE TABLE landed (subject text);
    CREATE FUNCTION land(payload bytea, subject text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      IF convert_from(payload, 'UTF8') = '${streamMessages}' THEN RAISE EXCEPTION 'the last one of % is bad', subject; END IF;
      INSERT INTO landed VALUES (subject);
    END $$;
    CREATE FUNCTION mail(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'`);
  for (let nth = 1; nth <= streams; nth += 1) {
    await rows("SELECT nats_create_stream($1, ARRAY[$2])", [`STREAM-${nth}`, `stream-${nth}.>`]);
    await rows("SELECT nats_publish_text_stream($1, n::text) FROM generate_series(1, $2::integer) AS n", [
      `stream-${nth}.made`,
      streamMessages,
    ]);
    await rows("SELECT nats_subscribe_stream($1, 'land', $2)", [`STREAM-${nth}`, `subscription-${nth}`]);
  }
  await rows("SELECT nats_subscribe('mails', 'mail')");
}

/** Peers with workers of their names. */
async function plantPeers(living: pg.Client, databaseUrl: string): Promise<void> {
  const dead = new pg.Client({ connectionString: databaseUrl });
  await dead.connect();
  for (let nth = 1; nth <= peers; nth += 1) {
    const runs = nth <= runningPeers;
    const client = runs ? living : dead;
    const name = peerName(nth);
    const life = randomBytes(8).readBigInt64BE();
    const owned = await client.query("SELECT epoch FROM hawser.own_name($1, $2, $3)", [name, name, String(life)]);
    const group = nth % 4 === 0 ? `group-${nth % 8}` : null;
    const served = Array.from({ length: servedTopics / peers + 5 }, (_, at) =>
      topicName(1 + ((nth * 5 + at * 97) % servedTopics)),
    );
    const ends = new Date(Date.now() + (nth % 10 === 0 ? 5 : 200) * 86_400_000);
    await client.query(
      "SELECT hawser.enter_directory($1, $2, $3, 1000000, true, $4::text[], array_fill(true, ARRAY[cardinality($4::text[])]), true, $5, '1.0.0', $6)",
      [name, owned.rows[0].epoch, `10.0.0.${nth}:7000`, served, group, ends],
    );
    if (runs) {
      const worker = await client.query("SELECT worker FROM hawser.open_worker($1, $2::text[], $3, 600000, 50, NULL)", [
        name,
        served,
        group,
      ]);
      await client.query("UPDATE hawser_data.workers SET running = $2 WHERE id = $1", [
        worker.rows[0].worker,
        {
          full: nth % 7 === 0,
          oldest_ms: nth * 1_000,
          topics: Object.fromEntries(
            served.map((topic) => [topic, { running: 2, oldest_ms: nth * 1_000, full: false }]),
          ),
          totals: Object.fromEntries(served.map((topic, at) => [topic, [1_000 * nth + at, nth]])),
        },
      ]);
    } else if (nth <= peers - uncleanPeers) await client.query("SELECT hawser.release_name($1, true)", [name]);
  }
  await dead.end();
}

async function plantQueue(client: pg.Client, roles: readonly string[]): Promise<void> {
  const someRoles = `(ARRAY['${roles.join("', '")}', session_user])[1 + n % 3]`;
  // Half of them in 20 topics, the others in all; of some priorities, for some peers and groups, and put off.
  await client.query(`
    INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, key, origin, attempts, due_at, enqueued_at, payload, headers, failures)
    SELECT m.topic, CASE m.priority WHEN 0 THEN '' ELSE '!' END || m.recipient, m.role, to_regrole(m.role)::oid::bigint, m.id - (m.priority::bigint << 46), m.id,
           CASE WHEN m.n % 3 = 0 THEN 'customer-' || m.n % 20000 END, CASE WHEN m.n % 2 = 0 THEN ${peerSql("1 + m.n % 100")} END,
           CASE WHEN m.is_put_off THEN 2 ELSE 0 END, CASE WHEN m.is_put_off THEN now() + interval '1 hour' END,
           now() - (${waiting} - m.n) * interval '20 ms', convert_to('{"order": ' || m.n || ', "text": "' || repeat('x', 150) || '"}', 'UTF8'),
           jsonb_build_array(jsonb_build_array('tenant', 'tenant-' || m.n % 50)),
           CASE WHEN m.is_put_off THEN '[{"attempt": 1, "at": "2026-01-01T00:00:00Z", "code": "handler_failed", "message": "no"}]'::jsonb END
      FROM (
        SELECT n, nextval('hawser_data.outbox_id_seq') AS id, ${someRoles} AS role, n % 400 = 7 AS is_put_off,
               ${topicSql(`CASE WHEN n % 2 = 0 THEN 1 + n / 2 % 20 ELSE 1 + n / 2 % ${topics} END`)} AS topic,
               CASE WHEN n % 50 = 1 THEN 5 ELSE 0 END AS priority,
               CASE WHEN n % 100 = 3 THEN '@' || ${peerSql("1 + n % 100")} WHEN n % 100 = 5 THEN '#group-4' ELSE '' END AS recipient
          FROM generate_series(1, ${waiting}) AS n
      ) AS m`);
  await client.query("ANALYZE hawser_data.queue");
  await client.query(`
    SELECT count(*) FROM hawser_data.workers AS w CROSS JOIN LATERAL (SELECT count(*) FROM hawser.take(w.id, 20, 1000000, NULL, '{}')) AS t`);
  await client.query(`
    SELECT hawser.enqueue(${topicSql("1 + n % 50")}, 'x'::text, key => 'later-' || n % 100, deliver_at => now() + interval '1 day' + n * interval '1 min') FROM generate_series(1, 3000) AS n`);
  await client.query(`
    SELECT hawser.enqueue('mails', 'x'::text, stream => false, deliver_at => now() + interval '1 day' + n * interval '1 min') FROM generate_series(1, 200) AS n`);
  await client.query(`
    SELECT hawser.enqueue_after(${topicSql("1 + q.id % 100")}, 'x'::text, ARRAY[q.id])
      FROM (SELECT * FROM hawser_data.queue WHERE role = session_user AND worker IS NULL AND later IS NULL ORDER BY id DESC LIMIT 300) AS q`);
}

/** Messages that peers have stored for others. */
async function plantStored(client: pg.Client): Promise<void> {
  for (let nth = 1; nth <= 40; nth += 1) {
    const channel = await client.query("SELECT channel_id FROM hawser.open_channel($1, 'shop', $2)", [
      peerName(nth),
      peerName(peers + 1 - nth),
    ]);
    await client.query(
      `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload)
       SELECT $1, 1, n, hawser.id_of_topic($2), 'x' FROM generate_series(1, 50) AS n`,
      [channel.rows[0].channel_id, topicName(nth)],
    );
  }
}

async function plantDeadLetters(client: pg.Client, roles: readonly string[]): Promise<void> {
  await client.query(`
    INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, headers, error_code, error_message, attempts, created_at, enqueued_at, role, job_id, rank, message_id, worker)
    SELECT CASE WHEN n % 50 = 0 THEN 'outbox' ELSE 'queue' END, '', ${topicSql(`1 + n % ${topics}`)}, convert_to('{"order": ' || n || '}', 'UTF8'),
           jsonb_build_array(jsonb_build_array('tenant', 'tenant-' || n % 50)), (ARRAY['handler_failed', 'rejected', 'timeout'])[1 + n % 3],
           'order ' || n || ': ' || ${causeSql(`100 + n % ${causes}`)} || ' is unknown', 5, now() - (${deadLetters} - n) * interval '5 s',
           now() - (${deadLetters} - n) * interval '5 s' - interval '10 min', (ARRAY['${roles.join("', '")}', session_user])[1 + n % 3],
           CASE WHEN n % 50 <> 0 THEN j.id END, CASE WHEN n % 50 <> 0 THEN j.id END, CASE WHEN n % 50 = 0 THEN 'message-' || n END, ${peerSql("1 + n % 100")}
      FROM (SELECT n, nextval('hawser_data.outbox_id_seq') AS id FROM generate_series(1, ${deadLetters}) AS n) AS j`);
}

/** Settings, schedules, history, audit and samples. */
async function plantRest(client: pg.Client): Promise<void> {
  await client.query(`
    SELECT hawser.pause_topic(${topicSql("n")}) FROM generate_series(101, 110) AS n;
    SELECT hawser.limit_topic(${topicSql("n")}, '10/s', NULL, 5, NULL, NULL) FROM generate_series(111, 120) AS n;
    SELECT hawser.keep_results(${topicSql("n")}, 86400000) FROM generate_series(1, 10) AS n;
    SELECT hawser.schedule('schedule-' || n, n % 60 || ' 3 29 2 *', topic => ${topicSql("n")}, payload => 'x') FROM generate_series(1, ${schedules}) AS n;
    INSERT INTO hawser_data.results (segment, id, role, topic, state, listener, attempts, enqueued_at, ended_at, duration_ms, expires_at, role_id)
    SELECT floor(extract(epoch FROM now() + interval '1 day') / 86400)::bigint % 12, nextval('hawser_data.outbox_id_seq'), session_user,
           ${topicSql("1 + n % 10")}, 'done', ${peerSql("1 + n % 80")}, 1, now() - interval '1 min', now() - n * interval '1 s', n % 500, now() + interval '1 day',
           session_user::regrole::oid::bigint FROM generate_series(1, 20000) AS n;
    INSERT INTO hawser_data.audit_records (action, object, count) SELECT 'retry', ${topicSql("1 + n % 500")}, 10 FROM generate_series(1, 1000) AS n;
    SELECT hawser.take_sample();
    INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series)
    SELECT 15, (s.slot - n + 240) % 240, s.sampled_at - n * interval '15 s', 15000, s.series FROM hawser_data.samples AS s, generate_series(1, 239) AS n WHERE s.step = 15
        ON CONFLICT (step, slot) DO UPDATE SET series = excluded.series, sampled_at = excluded.sampled_at;
    INSERT INTO hawser_data.samples (step, slot, sampled_at, covers_ms, series)
    SELECT 300, n, to_timestamp(floor(extract(epoch FROM now()) / 300 - n) * 300 + 290), 300000, s.series
      FROM (SELECT * FROM hawser_data.samples WHERE step = 15 ORDER BY sampled_at DESC LIMIT 1) AS s, generate_series(0, 287) AS n
        ON CONFLICT (step, slot) DO NOTHING`);
}
