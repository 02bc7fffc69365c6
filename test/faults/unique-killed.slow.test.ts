/**
 * Messages with a few unique keys are enqueued in transactions that commit or not, while three processes handle them and are killed in
 * turn. In the end each has had its effect once, no two of a key ever waited, and each transaction that relied on one that waited
 * has been seen by its handler.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { enqueue } from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { Crew } from "./support/crew.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, createLedger, problems, readDone, readSent } from "./support/ledger.js";

const kills = killsPerLoop(1);
const names = ["worker-1", "worker-2", "worker-3"];

/** Notes who was told a number, which messages have begun, and which have had their effects, in the transactions that do so. */
const notesSql = [
  "CREATE TABLE relied (xid xid8 DEFAULT pg_current_xact_id(), number bigint)",
  "CREATE INDEX ON relied (number)",
  "CREATE TABLE begun (number bigint)",
  `CREATE FUNCTION note_begun() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
   BEGIN
     INSERT INTO public.begun VALUES (old.id);
     RETURN NULL;
   END $$`,
  "CREATE TRIGGER note AFTER DELETE ON hawser_data.unique_keys FOR EACH ROW EXECUTE FUNCTION note_begun()",
  `CREATE FUNCTION note_done() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
   BEGIN
     INSERT INTO public.done (consumer, id) VALUES ('numbers', old.id);
     RETURN NULL;
   END $$`,
  "CREATE TRIGGER note AFTER DELETE ON hawser_data.queue FOR EACH ROW EXECUTE FUNCTION note_done()",
];
/** Keys of which two messages are there that have not begun. */
const twiceSql = `
  SELECT m.unique_key FROM hawser_data.queue AS m WHERE m.id NOT IN (SELECT b.number FROM begun AS b) GROUP BY 1 HAVING count(*) > 1`;
/** Of rows of the queue that are gone: those whose transaction is a handler's. */
const handledSql =
  "d.consumer = 'numbers' AND EXISTS (SELECT FROM done AS h WHERE h.consumer = 'jobs' AND h.xid = d.xid)";
/** Transactions that the handler has not seen, of the message that they relied on. */
const unseenSql = `
  SELECT r.number FROM relied AS r
    JOIN done AS n ON n.consumer = 'numbers' AND n.id = r.number::text
    JOIN done AS d ON d.consumer = 'jobs' AND d.xid = n.xid
   WHERE NOT pg_visible_in_snapshot(r.xid, d.snapshot)`;

it(`one of a key waits, and sees all that relied on it, after ${kills} kills (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await createLedger(url);
  await onServer(url, ...notesSql);
  const crew = new Crew((name) =>
    startProgram("test/faults/programs/job-worker.ts", [name], { env: { HAWSER_DATABASE_URL: url } }),
  );
  await crew.start(...names);

  let isOver = false;
  const write = async (nth: number): Promise<void> => {
    const random = new Random(faultSeed + nth);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    for (let round = 0; !isOver; round += 1) {
      const mode = random.chance(0.2) ? ("replace" as const) : ("keep" as const);
      const deliverAt = random.chance(0.3) ? new Date(Date.now() + random.between(0, 200)) : undefined;
      await client.query("BEGIN");
      const text = `${nth}-${round}`;
      const key = `k${random.between(1, 4)}`;
      const number = await enqueue(client, "jobs", text, { uniqueKey: { key, mode }, deliverAt });
      // It is a new one if nobody else was told its number.
      await client.query(
        "INSERT INTO sent (id, consumers) SELECT $1::text, '{numbers}' WHERE NOT EXISTS (SELECT FROM relied WHERE number = $1::text::bigint)",
        [String(number)],
      );
      await client.query("INSERT INTO relied (number) VALUES ($1)", [number]);
      await delay(20 * random.next());
      await client.query(random.chance(0.2) ? "ROLLBACK" : "COMMIT");
    }
    await client.end();
  };
  const writers = [1, 2, 3].map(write);
  for (let made = 0; made < kills; made += 1) {
    for (let looks = 0; looks < 30; looks += 1) {
      expect(await rowsOf(url, twiceSql)).toEqual([]);
      await delay(50);
    }
    const name = names[made % names.length]!;
    await crew.end(name);
    crew.launch(name);
  }
  isOver = true;
  await Promise.all(writers);
  const left = "SELECT count(*) AS left FROM hawser_data.queue";
  await crew.awaits("nothing is left", async () => (await rowsOf(url, left))[0]!["left"] === "0");
  await Promise.all(crew.names.map((each) => crew.end(each)));

  const sent = await readSent(url);
  const [relied] = await rowsOf(url, "SELECT count(*)::int AS n FROM relied");
  console.log(`${sent.length} messages for ${relied!["n"]} transactions`);
  expect(crew.unasked).toEqual([]);
  expect(sent.length).toBeGreaterThan(10 * kills);
  expect(relied!["n"]).toBeGreaterThan(sent.length);
  expect(problems(audit(sent, await readDone(url, handledSql)))).toEqual([]);
  expect(await rowsOf(url, unseenSql)).toEqual([]);
  expect(
    await rowsOf(url, "SELECT id FROM hawser_data.unique_keys UNION SELECT id FROM hawser_data.unique_locks"),
  ).toEqual([]);
});
