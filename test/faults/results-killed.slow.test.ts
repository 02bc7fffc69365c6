/**
 * Messages whose results are kept, half of them as their topic keeps results, are enqueued in transactions that commit or not, and some are cancelled, while three processes handle
 * them and are killed in turn. In the end the results are exactly those of the handlers' transactions that have committed: the number
 * of the row that each has written. Who waits for a result has it.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { cancel, enqueue, job, waitFor } from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { Crew } from "./support/crew.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, createLedger, problems, readDone, readSent } from "./support/ledger.js";

const kills = killsPerLoop(1);
const names = ["worker-1", "worker-2", "worker-3"];
/** Results beside the effects that have committed, as numbers of their rows: those that differ. */
const wrongSql = `
  SELECT r.id, r.result, d.nth FROM (SELECT * FROM hawser_data.results WHERE state = 'done') AS r
    FULL JOIN done AS d ON d.nth::text = r.result
   WHERE r.id IS NULL OR d.nth IS NULL`;
const twiceSql = "SELECT id FROM hawser_data.results GROUP BY id HAVING count(*) > 1";

it(`results are those that committed, after ${kills} kills (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await createLedger(url);
  const crew = new Crew((name) =>
    startProgram("test/faults/programs/job-worker.ts", [name], { env: { HAWSER_DATABASE_URL: url } }),
  );
  await crew.start(...names);
  await onServer(url, "SELECT hawser.keep_results('jobs', 3600000)");

  let isOver = false;
  const waits: Promise<unknown>[] = [];
  const write = async (nth: number): Promise<void> => {
    const random = new Random(faultSeed + nth);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    for (let round = 0; !isOver; round += 1) {
      const deliverAt = random.chance(0.3) ? new Date(Date.now() + random.between(0, 200)) : undefined;
      const text = `${nth}-${round}`;
      await client.query("BEGIN");
      const number = await enqueue(client, "jobs", text, {
        keepMs: random.chance(0.5) ? 3_600_000 : undefined,
        deliverAt,
      });
      await client.query("INSERT INTO sent (id, consumers) VALUES ($1, '{jobs}')", [text]);
      const commits = random.chance(0.8);
      await client.query(commits ? "COMMIT" : "ROLLBACK");
      if (commits && random.chance(0.1)) {
        // It is cancelled, or has its effect: its state says which.
        await cancel(client, number);
        const wait = waitFor(url, number, { timeoutMs: 120_000 }).then(async ({ state }) => {
          expect(["done", "cancelled"]).toContain(state);
          if (state === "cancelled") await rowsOf(url, `UPDATE sent SET outcome = 'withdrawn' WHERE id = '${text}'`);
        });
        waits.push(wait);
      } else if (commits && random.chance(0.2)) {
        waits.push(
          waitFor(url, number, { timeoutMs: 120_000 }).then(async ({ state, result }) => {
            expect(state).toBe("done");
            expect(await rowsOf(url, `SELECT id FROM done WHERE nth = ${result}`)).toEqual([{ id: text }]);
          }),
        );
      } else if (!commits) expect(await job(client, number)).toMatchObject({ state: "unknown" });
      await delay(20 * random.next());
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
  const left = "SELECT count(*) AS left FROM hawser_data.queue";
  await crew.awaits("nothing is left", async () => (await rowsOf(url, left))[0]!["left"] === "0");
  await Promise.all(waits);
  await Promise.all(crew.names.map((each) => crew.end(each)));

  const sent = await readSent(url);
  const [kept] = await rowsOf(url, "SELECT count(*)::int AS n FROM hawser_data.results");
  console.log(`${sent.length} messages, ${kept!["n"]} results, ${waits.length} waits`);
  expect(crew.unasked).toEqual([]);
  expect(sent.length).toBeGreaterThan(10 * kills);
  expect(kept!["n"]).toBe(sent.length);
  expect(problems(audit(sent, await readDone(url)))).toEqual([]);
  expect(await rowsOf(url, wrongSql)).toEqual([]);
  expect(await rowsOf(url, twiceSql)).toEqual([]);
});
