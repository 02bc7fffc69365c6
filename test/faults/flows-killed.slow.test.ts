/**
 * Graphs of messages, each of which comes after some of those before it, are enqueued in transactions that commit or not, while three
 * processes handle them and are killed in turn. In the end each has had its effect once, in a transaction that has seen those of all
 * messages before it.
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
/** Messages of a graph. */
const nodes = 12;

/** Effects whose transactions have not seen that of a message before theirs. */
const earlySql = `
  SELECT e.after FROM edges AS e
    JOIN done AS a ON a.id = e.after
    LEFT JOIN done AS b ON b.id = e.before
   WHERE b.xid IS NULL OR NOT pg_visible_in_snapshot(b.xid, a.snapshot)`;
const leftSql = "SELECT count(*) AS left FROM hawser_data.queue";

it(`each comes once, behind all before it, after ${kills} kills (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await createLedger(url);
  await onServer(url, "CREATE TABLE edges (before text, after text)");
  const crew = new Crew((name) =>
    startProgram("test/faults/programs/job-worker.ts", [name], { env: { HAWSER_DATABASE_URL: url } }),
  );
  await crew.start(...names);

  let isOver = false;
  let added = 0;
  const write = async (nth: number): Promise<void> => {
    const random = new Random(faultSeed + nth);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const add = async (id: string, before: ReadonlyMap<string, bigint>): Promise<bigint> => {
      const delayMs = random.chance(0.1) ? random.between(1, 100) : undefined;
      const number = await enqueue(client, "jobs", id, { after: [...before.values()], delayMs });
      await client.query("INSERT INTO sent (id, consumers) VALUES ($1, '{jobs}')", [id]);
      await client.query("INSERT INTO edges SELECT b, $1 FROM unnest($2::text[]) AS b", [id, [...before.keys()]]);
      return number;
    };
    for (let round = 0; !isOver; round += 1) {
      // Half of them a fan from one message to one, half at random.
      const isFan = random.chance(0.5);
      const ids = new Map<string, bigint>();
      await client.query("BEGIN");
      for (let node = 0; node < nodes; node += 1) {
        const isBefore = (_: unknown, place: number) =>
          isFan ? (place === 0) !== (node === nodes - 1) : random.chance(0.3);
        const id = `${nth}-${round}-${node}`;
        ids.set(id, await add(id, new Map([...ids].filter(isBefore))));
      }
      await client.query(random.chance(0.2) ? "ROLLBACK" : "COMMIT");
      await delay(300 * random.next());
      // What still waits may be named later.
      await client.query("BEGIN");
      try {
        await add(`${nth}-${round}-added`, new Map([...ids].slice(-1)));
        await client.query("COMMIT");
        added += 1;
      } catch (error) {
        expect(error).toMatchObject({ code: "NA010" });
        await client.query("ROLLBACK");
      }
    }
    await client.end();
  };
  const writers = [1, 2, 3].map(write);
  for (let made = 0; made < kills; made += 1) {
    await delay(1_500);
    const name = names[made % names.length]!;
    await crew.end(name);
    crew.launch(name);
  }
  isOver = true;
  await Promise.all(writers);
  await crew.awaits("nothing is left", async () => (await rowsOf(url, leftSql))[0]!["left"] === "0");
  await Promise.all(crew.names.map((each) => crew.end(each)));

  const sent = await readSent(url);
  const [edges] = await rowsOf(url, "SELECT count(*)::int AS n FROM edges");
  console.log(`${sent.length} messages, ${edges!["n"]} times one after another, ${added} added later`);
  expect(crew.unasked).toEqual([]);
  expect(sent.length).toBeGreaterThan(10 * kills);
  expect(added).toBeGreaterThan(0);
  expect(problems(audit(sent, await readDone(url)))).toEqual([]);
  expect(await rowsOf(url, earlySql)).toEqual([]);
  expect(
    await rowsOf(url, "SELECT after_id FROM hawser_data.flow_edges UNION SELECT id FROM hawser_data.flow_ends"),
  ).toEqual([]);
});
