/**
 * Four roles enqueue at the same rate for a topic of one peer, with the same keys. One of them also enqueues tens of thousands of
 * messages for that topic, with keys of the others, for each listener of its own invention, and for thousands of topics that
 * nobody serves, and a login without rights holds the advisory locks by which workers say that they wait. The others notice no
 * more of it than of a role that makes Postgres work as much in a table of its own. HAWSER_ROLES_SECONDS says how long each of
 * the two parts takes.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { Peer } from "../../src/peer/index.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql } from "./support/sql-database.js";

const seconds = Number(process.env["HAWSER_ROLES_SECONDS"] ?? 10);
const perSecond = 50;
const honest = ["ann", "bob", "cyd"] as const;
const hostile = "mal";
/** Messages of a burst, of which each kind has its own. */
const burst = 20_000;
/** As in `outbox-roles.slow.test.ts`: in one line for all roles, the median would be the time that the bursts take. */
const limitFactor = 20;

it("a role that enqueues as much as it can for a topic delays only itself, and its keys hold up no other role", {
  timeout: 300_000 + 2 * seconds * 1_000,
}, async () => {
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  await admin.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
  for (const role of [...honest, hostile]) {
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD '${role}' IN ROLE hawser_peer`);
  }
  // The control inserts as many rows of the same form and indexes, one per call: its cost for Postgres is not the queue's.
  await admin.query(`
    CREATE TABLE burned (LIKE hawser_data.queue INCLUDING ALL);
    CREATE FUNCTION burn(key text, topic text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        INSERT INTO public.burned (topic, id, key, payload) VALUES (topic, nextval('hawser_data.outbox_id_seq'), key, 'x');
      END
    $$;
    GRANT EXECUTE ON FUNCTION burn TO ${hostile}`);
  const stranger = new pg.Client({ connectionString: roleUrl(postgres.url, "stranger") });
  await stranger.connect();
  for (let bucket = 0; bucket < 32; bucket++) {
    await stranger.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [`hawser:queue:${bucket}`]);
  }
  const sent = new Map<string, number>();
  let times: number[] = [];
  await using peer = new Peer({ name: "worker-1", topic: "work", databaseUrl: postgres.url });
  await peer.handle("work", { transactional: true }, ({ payload }) => {
    const text = payload.toString();
    const at = sent.get(text);
    if (at === undefined) return;
    sent.delete(text);
    times.push(performance.now() - at);
  });
  await peer.start();
  /** Runs all roles; resolves with the times of the first three's messages when all of them have been handled. */
  const part = async (statements: readonly string[]): Promise<number[]> => {
    times = [];
    const ending = new AbortController();
    const working = inTurns(postgres.url, ending.signal, statements);
    const writing = [...honest, hostile].map((role) => writer(postgres.url, role, ending.signal, sent));
    await delay(seconds * 1_000);
    ending.abort();
    await Promise.all([working, ...writing]);
    for (let waited = 0; sent.size > 0 && waited < 60_000; waited += 50) await delay(50);
    expect(sent.size).toBe(0);
    return times;
  };
  try {
    const control = await part([
      "SELECT burn('k' || n % 10, 'work') FROM generate_series(1, $1::integer) AS n",
      "SELECT burn(NULL, 'work') FROM generate_series(1, $1::integer) AS n",
      "SELECT burn(NULL, 'topic-' || $2::text || '-' || n) FROM generate_series(1, $1::integer / 4) AS n",
    ]);
    const attacked = await part([
      "SELECT hawser.enqueue('work', 'x', key => 'k' || n % 10) FROM generate_series(1, $1::integer) AS n",
      "SELECT hawser.enqueue('work', 'x') FROM generate_series(1, $1::integer) AS n",
      "SELECT hawser.enqueue('topic-' || $2::text || '-' || n, 'x') FROM generate_series(1, $1::integer / 4) AS n",
    ]);
    const [usual, found] = [median(control), median(attacked)];
    const { rows } = await admin.query<{ left: number }>(
      "SELECT count(*)::integer AS left FROM hawser_data.queue WHERE topic = 'work'",
    );
    console.log(
      `median of ${control.length} and ${attacked.length} messages: ${usual.toFixed(1)} ms beside a role that works in a table of its own, ${found.toFixed(1)} ms beside one that attacks (${(found / usual).toFixed(2)}×), of which ${rows[0]!.left} messages wait`,
    );
    expect(found).toBeLessThan(limitFactor * Math.max(usual, 25));
    // Otherwise the peer was faster than the attack, and nothing was shown.
    expect(rows[0]!.left).toBeGreaterThan(burst / 4);
  } finally {
    await stranger.end();
    await admin.end();
  }
});

/** Enqueues messages one after another at `perSecond`. */
async function writer(url: string, role: string, signal: AbortSignal, sent: Map<string, number>): Promise<void> {
  const client = new pg.Client({ connectionString: roleUrl(url, role) });
  await client.connect();
  const startedAt = performance.now();
  for (let nth = 0; !signal.aborted; nth += 1) {
    await delay(Math.max(0, startedAt + (nth * 1_000) / perSecond - performance.now()));
    const text = `${startedAt} ${role} ${nth}`;
    if (role !== hostile) sent.set(text, performance.now());
    await client.query("SELECT hawser.enqueue('work', $1::text, key => $2)", [text, `k${nth % 10}`]);
  }
  await client.end();
}

async function inTurns(url: string, signal: AbortSignal, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: roleUrl(url, hostile) });
  await client.connect();
  for (let nth = 0; !signal.aborted; nth += 1) {
    const text = statements[nth % statements.length]!;
    await client.query(text, text.includes("$2") ? [burst, `${nth}`] : [burst]);
    if (nth % statements.length === statements.length - 1) await delay(500);
  }
  await client.end();
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.POSITIVE_INFINITY;
}

function roleUrl(url: string, role: string): string {
  const own = new URL(url);
  own.username = role;
  own.password = role;
  return own.href;
}
