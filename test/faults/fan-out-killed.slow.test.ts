/**
 * Listeners, members of two groups and relays are killed while messages for all are enqueued. In the end each durable listener has
 * handled each committed message once, and so has each group, in the order of its key. HAWSER_FAULT_SEED repeats the choices of a
 * run, HAWSER_FAULT_KILLS says how many kills there are.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";

const kills = killsPerLoop(1);
const least = 40 * kills;
/** The group of each listener; empty: of none. */
const listeners: Readonly<Record<string, string>> = {
  one: "",
  two: "",
  three: "red",
  four: "red",
  five: "blue",
  six: "blue",
};
const relays = ["relay-1", "relay-2"];
/** Listeners and groups, each of which gets a copy of each message. */
const recipients = ["listener one", "listener two", "group red", "group blue"];

it(`each listener and each group has each message for all once, after ${kills} kills (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  const random = new Random(faultSeed);
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await rowsOf(url, "CREATE TABLE written (nth bigserial, id uuid, key text)");
  // No constraint: what comes twice is to be seen.
  await rowsOf(url, "CREATE TABLE booked (nth bigserial, topic text, id uuid, key text, peer text)");
  const running = new Map<string, Program>();
  const unasked: string[] = [];
  const start = (name: string): void => {
    const topic = name in listeners ? "news" : "relay";
    const program = startProgram("test/faults/programs/booking-peer.ts", [name, topic, "", "4"], {
      env: { HAWSER_DATABASE_URL: url, BOOKING_GROUP: listeners[name] ?? "", BOOKING_DURABLE: "1" },
    });
    running.set(name, program);
    void program.ended.then(({ status, signal, stderr }) => {
      if (running.get(name) === program) unasked.push(`${name} has ended (${status ?? signal}): ${stderr}`);
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
  const names = [...Object.keys(listeners), ...relays];
  for (const name of names) start(name);
  await eventually("all are in the directory", async () => {
    return (await rowsOf(url, "SELECT FROM hawser_data.listeners")).length === names.length;
  });

  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const enqueue = async (): Promise<void> => {
    const chosen = [1, 2, 3].map(() => `k${random.between(1, 5)}`).sort();
    await client.query("BEGIN");
    for (const key of chosen)
      await client.query(
        `WITH drawn AS (SELECT gen_random_uuid() AS id), sent AS (
           SELECT id, hawser.enqueue('news', id::text, headers => jsonb_build_object('key', $1::text), key => $1, to_all => true) FROM drawn
         )
         INSERT INTO written (id, key) SELECT id, $1 FROM sent`,
        [key],
      );
    await client.query(random.chance(0.1) ? "ROLLBACK" : "COMMIT");
  };
  let isOver = false;
  const load = (async () => {
    for (let count = 0; !isOver || count < least; count += 3) {
      await enqueue();
      await delay(random.between(0, 10));
    }
  })();
  for (let made = 0; made < kills; made++) {
    const name = random.pick(names);
    await kill(name);
    await delay(random.between(0, 1_500));
    start(name);
    await delay(random.between(0, 1_500));
  }
  isOver = true;
  await load;
  await client.end();

  const [{ written } = { written: 0 }] = (await rowsOf(url, "SELECT count(*)::float8 AS written FROM written")) as {
    written: number;
  }[];
  const booked = async (): Promise<number> => (await rowsOf(url, "SELECT FROM booked")).length;
  await eventually("all copies are booked", async () => (await booked()) >= written * recipients.length, 120_000);
  await eventually(
    "nothing is left",
    async () => (await rowsOf(url, "SELECT FROM hawser_data.stored_messages")).length === 0,
  );
  const found = await rowsOf(url, foundSql);
  console.log(`${written} messages for all, ${kills} kills: ${JSON.stringify(found)}`);
  expect(unasked).toEqual([]);
  expect(found).toEqual(
    recipients.map((recipient) => ({ recipient, booked: written, ids: written, late: 0 })).sort(byRecipient),
  );
});

const byRecipient = (one: { recipient: string }, other: { recipient: string }): number =>
  one.recipient < other.recipient ? -1 : 1;

/** For each recipient: effects, distinct messages with an effect, and effects out of order within their key. */
const foundSql = `
  WITH b AS (
    SELECT r.recipient, b.id, w.nth < lag(w.nth) OVER (PARTITION BY r.recipient, w.key ORDER BY b.nth) AS late
      FROM booked AS b
      JOIN written AS w ON w.id = b.id AND w.key = b.key
     CROSS JOIN LATERAL (
       SELECT CASE g.value WHEN '' THEN 'listener ' || b.peer ELSE 'group ' || g.value END AS recipient
         FROM jsonb_each_text('${JSON.stringify(listeners)}') AS g WHERE g.key = b.peer
     ) AS r
  )
  SELECT b.recipient, count(*)::float8 AS booked, count(DISTINCT b.id)::float8 AS ids, count(*) FILTER (WHERE b.late)::float8 AS late
    FROM b GROUP BY b.recipient ORDER BY b.recipient COLLATE "C"`;
