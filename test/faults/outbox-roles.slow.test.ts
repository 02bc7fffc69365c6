/**
 * Four roles enqueue at the same rate, each for a stream of its own. One of them also enqueues what is too long, what has no
 * stream and no domain, and transactions with thousands of keys and topics, and a login without rights holds every advisory lock
 * that Hawser has ever used. The others notice no more of it than of a role that makes Postgres work as much in a table of its
 * own. HAWSER_ROLES_SECONDS says how long each of the two parts takes.
 */
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { startNatsServer } from "../support/nats-server.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeProcess } from "./support/serve-process.js";
import { prepareForSql } from "./support/sql-database.js";

const seconds = Number(process.env["HAWSER_ROLES_SECONDS"] ?? 10);
const perSecond = 100;
const honest = ["ann", "bob", "cyd"] as const;
const hostile = "mal";
/** Messages of a burst, of which each kind has its own. */
const burst = 60_000;
/**
 * Limit on the delay of half of the other roles' messages, as a multiple of the control. The relay's work for the fourth role takes
 * CPU time, too: a factor of 2 to 3 was measured with two processors. A single window for all roles would make it thousands. What
 * the slowest messages take says more of the machine.
 */
const limitFactor = 20;

const locks = [
  "hawser:lease:__#outbox",
  "hawser:lease:ann",
  "hawser:fence:ann",
  "hawser:fence:__#outbox",
  "hawser:listeners",
  "hawser:dead_letters",
  "hawser:handlers:responder",
];

it("a role that enqueues what cannot be published, and as much as it can, delays only itself", {
  timeout: 300_000 + 2 * seconds * 1_000,
}, async () => {
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await prepareForSql(postgres.url, nats.url);
  const admin = new pg.Client({ connectionString: postgres.url });
  await admin.connect();
  await admin.query("CREATE ROLE stranger LOGIN PASSWORD 'stranger'");
  for (const role of [...honest, hostile])
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD '${role}' IN ROLE hawser_nats, hawser_peer`);
  // The control inserts as many rows of the same form and indexes, one per call: its cost for Postgres is not the outbox's.
  await admin.query(`
    CREATE TABLE burned (LIKE hawser_data.outbox INCLUDING ALL);
    CREATE FUNCTION burn(key text, payload text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        INSERT INTO public.burned (segment, destination, payload, key, message_id, to_stream)
        VALUES (0, 'mal', convert_to(payload, 'UTF8'), key, gen_random_uuid()::text, true);
      END
    $$;
    GRANT EXECUTE ON FUNCTION burn TO ${hostile}`);
  // Before anything runs, and to its end.
  const stranger = new pg.Client({ connectionString: roleUrl(postgres.url, "stranger") });
  await stranger.connect();
  for (const name of locks) await stranger.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [name]);
  await using serve = await ServeProcess.start(postgres.url);
  const watcher = await connect({ servers: nats.url });
  try {
    const manager = await jetstreamManager(watcher);
    for (const role of [...honest, hostile]) await manager.streams.add({ name: role, subjects: [`${role}.>`] });
    await arrival(watcher, postgres.url);
    const control = await part(watcher, postgres.url, burning);
    const attacked = await part(watcher, postgres.url, attacking);
    const [usual, found] = [median(control.times), median(attacked.times)];
    console.log(
      `median of ${control.times.length} and ${attacked.times.length} messages: ${usual.toFixed(1)} ms beside a role that works in a table of its own, ${found.toFixed(1)} ms beside one that attacks (${(found / usual).toFixed(2)}×)`,
    );
    expect(control.missing).toBe(0);
    expect(attacked.missing).toBe(0);
    expect(found).toBeLessThan(limitFactor * Math.max(usual, 25));
    expect(serve.isRunning).toBe(true);
  } finally {
    await stranger.end();
    await admin.end();
    await watcher.close();
  }
});

/** The first message of each role has come: everything is connected. */
async function arrival(watcher: NatsConnection, url: string): Promise<void> {
  const { missing } = await part(watcher, url, async () => undefined, 1);
  expect(missing).toBe(0);
}

/** Load of the fourth role; runs until the signal aborts. */
type Fourth = (url: string, signal: AbortSignal) => Promise<unknown>;

/** Runs all roles for `forSeconds`; resolves when all messages of the first three have arrived. */
async function part(watcher: NatsConnection, url: string, fourth: Fourth, forSeconds = seconds) {
  const sent = new Set<string>();
  const times: number[] = [];
  const subscriptions = honest.map((role) =>
    watcher.subscribe(`${role}.>`, {
      callback: (_, message) => {
        const text = message.string();
        if (sent.delete(text)) times.push(Date.now() - Number(text.split(" ")[0]));
      },
    }),
  );
  await watcher.flush();
  const ending = new AbortController();
  const working = fourth(url, ending.signal);
  const writing = [...honest, hostile].map((role) => writer(url, role, ending.signal, sent));
  await delay(forSeconds * 1_000);
  ending.abort();
  await Promise.all(writing);
  for (let waited = 0; sent.size > 0 && waited < 60_000; waited += 50) await delay(50);
  await working;
  for (const subscription of subscriptions) subscription.unsubscribe();
  return { times, missing: sent.size };
}

/** Enqueues messages one after another at `perSecond`. */
async function writer(url: string, role: string, signal: AbortSignal, sent: Set<string>): Promise<void> {
  const client = new pg.Client({ connectionString: roleUrl(url, role) });
  await client.connect();
  const startedAt = performance.now();
  for (let nth = 0; !signal.aborted; nth += 1) {
    await delay(Math.max(0, startedAt + (nth * 1_000) / perSecond - performance.now()));
    const text = `${Date.now()} ${role} ${nth}`;
    if (role !== hostile) sent.add(text);
    await client.query("SELECT hawser.enqueue($1, $2, stream => true, key => $3)", [`${role}.x`, text, `k${nth % 10}`]);
  }
  await client.end();
}

/** Load on Postgres equal to that of {@link attacking}, but without an effect on the outbox. */
const burning: Fourth = (url, signal) =>
  inTurns(url, signal, [
    "SELECT burn('k' || n, 'x') FROM generate_series(1, $1::integer) AS n",
    "SELECT burn('k' || n, 'x') FROM generate_series(1, $1::integer) AS n",
    "SELECT burn('k' || n, 'x') FROM generate_series(1, $1::integer / 6) AS n",
    "SELECT burn('k' || n, 'x') FROM generate_series(1, $1::integer / 6) AS n",
    "SELECT burn('k', repeat('x', 2 << 20)) FROM generate_series(1, $1::integer / 6000) AS n",
  ]);

const attacking: Fourth = (url, signal) =>
  inTurns(url, signal, [
    "SELECT hawser.enqueue('mal.k' || n, 'x', stream => true, key => 'k' || n) FROM generate_series(1, $1::integer) AS n",
    "SELECT hawser.enqueue('topic-' || $2::text || '-' || n, 'x') FROM generate_series(1, $1::integer) AS n",
    "SELECT hawser.enqueue('mal.d', 'x', stream => true, domain => 'gone' || n % 50) FROM generate_series(1, $1::integer / 6) AS n",
    "SELECT hawser.enqueue('missing.' || $2::text || '.' || n, 'x', stream => true) FROM generate_series(1, $1::integer / 6) AS n",
    "SELECT hawser.enqueue('mal.long', repeat('x', 2 << 20), stream => true) FROM generate_series(1, $1::integer / 6000) AS n",
  ]);

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
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.POSITIVE_INFINITY;
}

function roleUrl(url: string, role: string): string {
  const own = new URL(url);
  own.username = role;
  own.password = role;
  return own.href;
}
