/**
 * Handlers, relays and Postgres are killed, and Postgres fails over twice to a standby that lacks what was committed last, while
 * messages with keys are enqueued and handled in transactions, many at a time in three processes. In the end each message that is
 * committed has had its effect once, nothing else has had one, and each key is in the order of its commits: all of that as the
 * database says which is there then. HAWSER_FAULT_SEED repeats the choices of a run (not its timing), HAWSER_FAULT_KILLS says
 * how many kills there are, HAWSER_FAULT_MESSAGES how many messages at least.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { migrate } from "../../src/store/index.js";
import { Random } from "../simulator/random.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";

const kills = killsPerLoop(1);
const messages = Number(process.env["HAWSER_FAULT_MESSAGES"] ?? 300 * kills);
const keys = Math.min(1_000, messages / 10);
const writers = 4;
/** Messages of one transaction. */
const batch = 40;
/** The writers do not run ahead of the handlers by much more. They go on until the last kill, since messages are handled during kills, too. */
const mostWaiting = Math.min(10_000, messages);
const concurrency = 16;
/** Exit status of a peer's program that has lost its name. */
const nameLostStatus = 3;
const handlers = ["handler-1", "handler-2", "handler-3"];
const relays = ["relay-1", "relay-2"];
/** Kinds of processes to kill, in turn. */
const kinds = ["handlers", "relays", "Postgres", "handlers"] as const;
/** Failovers happen before the kills with these numbers. */
const failovers = [Math.floor(kills / 3), Math.floor((2 * kills) / 3)];

it(`${messages} enqueued messages have had their effects once, each key in order, after ${kills} kills and two failovers (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: 2 * loopTimeoutMs(kills) + 20 * messages,
}, async () => {
  const random = new Random(faultSeed);
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await using proxy = await startProxy(servers.primary.url);
  // No constraint: what comes twice is to be seen.
  await rowsOf(servers.primary.url, "CREATE TABLE written (nth bigserial PRIMARY KEY, id uuid, key text)");
  await rowsOf(
    servers.primary.url,
    "CREATE TABLE booked (nth bigserial PRIMARY KEY, topic text, id uuid, key text, peer text)",
  );

  const running = new Map<string, Program>();
  const unasked: string[] = [];
  let namesLost = 0;
  const start = (name: string): void => {
    const args = [name, handlers.includes(name) ? "jobs" : "relay", "", String(concurrency)];
    const program = startProgram("test/faults/programs/booking-peer.ts", args, {
      env: { HAWSER_DATABASE_URL: proxy.url },
    });
    running.set(name, program);
    void program.ended.then(({ status, signal, stderr }) => {
      if (running.get(name) !== program) return;
      // A failover can lose the commit by which the process got its name. It is restarted, as by any supervisor.
      if (status === nameLostStatus) {
        namesLost += 1;
        start(name);
      } else unasked.push(`${name} has ended (${status ?? signal}): ${stderr}`);
    });
  };
  const kill = async (name: string): Promise<void> => {
    const { child, ended } = running.get(name)!;
    running.delete(name);
    child.kill("SIGKILL");
    await ended;
  };
  onTestFinished(async () => {
    await Promise.all([...running.keys()].map(kill));
  });
  for (const name of [...handlers, ...relays]) start(name);

  const ending = new AbortController();
  const load = Array.from({ length: writers }, (_, nth) => {
    return write(proxy.url, new Random(faultSeed + nth), ending.signal);
  });
  /** Numbers that handlers have drawn: some more than there are effects. */
  const progress = async (): Promise<number> => {
    const [row] = await rowsOf(servers.primary.url, "SELECT last_value::float8 AS n FROM booked_nth_seq").catch(
      () => [],
    );
    return (row?.["n"] as number | undefined) ?? 0;
  };
  const progressBy = async (count: number): Promise<void> => {
    const from = await progress();
    await eventually(
      `${count} more messages are handled`,
      async () => {
        if (unasked.length > 0) throw new Error(unasked.join("\n"));
        return (await progress()) >= from + count;
      },
      600_000,
    );
  };
  const bookedIn = async (url: string): Promise<number> =>
    (await rowsOf(url, "SELECT count(*)::float8 AS n FROM booked"))[0]!["n"] as number;

  const killed = { handlers: 0, relays: 0, Postgres: 0 };
  const lost: number[] = [];
  const relaysSeen = new Set<string>();
  const step = Math.floor(messages / (kills + failovers.length + 1));
  for (let made = 0; made < kills; made += 1) {
    await progressBy(step);
    if (failovers.includes(made)) {
      await servers.cutOff();
      await progressBy(Math.min(step, 1_000));
      const before = await bookedIn(servers.primary.url);
      await servers.failOver();
      proxy.leadTo(servers.primary.url);
      lost.push(before - (await bookedIn(servers.primary.url)));
      await progressBy(step);
      await servers.renew();
      await progressBy(step);
    }
    for (const { owner } of await rowsOf(
      servers.primary.url,
      "SELECT owner FROM hawser_data.outbox_turns WHERE sink = 1 ORDER BY turn DESC LIMIT 1",
    ))
      relaysSeen.add(String(owner));
    const kind = kinds[made % kinds.length]!;
    killed[kind] += 1;
    if (kind === "Postgres") {
      await servers.primary.kill("SIGKILL");
      await delay(random.between(0, 300));
      await servers.primary.start();
    } else {
      const name = random.pick(kind === "handlers" ? handlers : relays);
      await kill(name);
      await delay(random.between(0, 500));
      start(name);
    }
  }
  ending.abort();
  const tried = (await Promise.all(load)).reduce((sum, one) => sum + one, 0);

  const { url } = servers.primary;
  const [row] = await rowsOf(url, "SELECT count(*)::float8 AS n FROM written");
  const written = row!["n"] as number;
  await eventually("everything is booked", async () => (await bookedIn(url)) >= written, 600_000 + messages);
  // Duplicates would arrive within this time.
  await delay(2_000);
  const [found] = await rowsOf(url, foundSql);
  const [dead] = await rowsOf(url, "SELECT count(*)::float8 AS n FROM hawser_data.dead_letters");
  console.log(
    `${messages} messages, ${killed.handlers} handlers, ${killed.relays} relays and Postgres ${killed.Postgres} times killed, ` +
      `${relaysSeen.size} relays seen, failovers that lost ${lost.join(" and ")} effects, ${namesLost} names lost: ${tried} transactions were tried, ` +
      `${written} messages are committed: ${JSON.stringify(found)}`,
  );
  expect(unasked).toEqual([]);
  expect(namesLost).toBeLessThanOrEqual(failovers.length * running.size);
  expect(lost.length).toBe(failovers.length);
  expect(Math.min(...lost)).toBeGreaterThan(0);
  expect(dead).toEqual({ n: 0 });
  expect(found).toEqual({ booked: written, missing: 0, stray: 0, twice: 0, late: 0 });
});

/** Effects; messages without one; effects of no message; further effects of a message; effects before one of an earlier message of the key. */
const foundSql = `
  WITH b AS (
    SELECT b.nth, b.id, b.key, w.nth AS written, w.nth < lag(w.nth) OVER (PARTITION BY w.key ORDER BY b.nth) AS late
      FROM booked AS b LEFT JOIN written AS w ON w.id = b.id AND w.key = b.key
  )
  SELECT count(*)::float8 AS booked, count(*) FILTER (WHERE b.written IS NULL)::float8 AS stray,
         (count(*) - count(DISTINCT b.id))::float8 AS twice, count(*) FILTER (WHERE b.late)::float8 AS late,
         (SELECT count(*)::float8 FROM written AS w WHERE NOT EXISTS (SELECT FROM booked AS o WHERE o.id = w.id)) AS missing
    FROM b`;

/**
 * Enqueues in transactions until the signal, and then until there are enough.
 *
 * @returns how many transactions were begun
 */
async function write(url: string, random: Random, signal: AbortSignal): Promise<number> {
  let tried = 0;
  for (let isEnough = false; !isEnough; ) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      while (!isEnough) {
        const { rows } = await client.query(
          `SELECT (SELECT last_value FROM written_nth_seq)::float8 AS written,
                  (SELECT count(*)::float8 FROM (SELECT FROM hawser_data.stored_messages LIMIT ${mostWaiting}) AS waiting) AS waiting`,
        );
        isEnough = signal.aborted && rows[0].written >= messages && (await countOf(client)) >= messages;
        if (rows[0].waiting >= mostWaiting) await delay(50);
        else if (!isEnough) {
          tried += 1;
          await writeBatch(client, random);
        }
      }
    } catch {
      // Postgres is away.
      await delay(20);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
  return tried;
}

async function countOf(client: pg.Client): Promise<number> {
  return (await client.query("SELECT count(*)::float8 AS n FROM written")).rows[0].n;
}

async function writeBatch(client: pg.Client, random: Random): Promise<void> {
  // In one order, so that transactions do not wait for each other's keys in a circle.
  const chosen = Array.from({ length: batch }, () => `k${random.between(1, keys)}`).sort();
  await client.query("BEGIN");
  // The number is drawn while the key is locked: for one key numbers grow in the order of the commits.
  for (const key of chosen)
    await client.query({
      name: "write",
      text: `WITH drawn AS (SELECT gen_random_uuid() AS id), sent AS (
               SELECT id, hawser.enqueue('jobs', id::text, headers => jsonb_build_object('key', $1::text), key => $1) FROM drawn
             )
             INSERT INTO written (id, key) SELECT id, $1 FROM sent`,
      values: [key],
    });
  await client.query(random.chance(0.1) ? "ROLLBACK" : "COMMIT");
}
