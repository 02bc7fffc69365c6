/**
 * Messages are cancelled at any moment, in transactions that commit or not, while three processes handle them and are killed in turn.
 * In the end no cancelled message has had an effect, each other one has had its effect once, and no handler runs that was to end.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { cancel, enqueueBatch } from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { Crew } from "./support/crew.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, createLedger, problems, readDone, readSent } from "./support/ledger.js";

const kills = killsPerLoop(1);
const names = ["worker-1", "worker-2", "worker-3"];
const outcomes = { cancelled: "withdrawn", cancelling: "unknown", not_waiting: undefined };

it(`what is cancelled has no effect, all else has it once, after ${kills} kills (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  const random = new Random(faultSeed);
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await createLedger(url);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const crew = new Crew((name) =>
    startProgram("test/faults/programs/job-worker.ts", [name], { env: { HAWSER_DATABASE_URL: url } }),
  );
  await crew.start(...names);

  const counts = { cancelled: 0, cancelling: 0, not_waiting: 0 };
  /** Ids and numbers of what may be cancelled. */
  const jobs: (readonly [id: string, number: bigint])[] = [];
  const withdraw = async ([id, number]: (typeof jobs)[number], isCommit: boolean): Promise<void> => {
    await client.query("BEGIN");
    const state = await cancel(client, number);
    if (outcomes[state] !== undefined)
      await client.query("UPDATE sent SET outcome = $2 WHERE id = $1", [id, outcomes[state]]);
    await client.query(isCommit ? "COMMIT" : "ROLLBACK");
    if (isCommit) counts[state] += 1;
  };
  const endless: typeof jobs = [];
  for (let round = 0, made = 0; made < kills; round += 1) {
    const ids = Array.from({ length: 10 }, (_, nth) => `${round}-${nth}${nth === 0 ? " endless" : ""}`);
    const key = random.chance(0.3) ? `k${random.between(1, 3)}` : undefined;
    const deliverAt = random.chance(0.2) ? new Date(Date.now() + 100) : undefined;
    await client.query("BEGIN");
    const numbers = await enqueueBatch(client, "jobs", key === undefined ? ids : ids.slice(1), { key, deliverAt });
    const put = key === undefined ? ids : ids.slice(1);
    await client.query("INSERT INTO sent (id, consumers) SELECT id, '{jobs}' FROM unnest($1::text[]) AS id", [put]);
    await client.query("COMMIT");
    const batch = put.map((id, nth) => [id, numbers[nth]!] as const);
    jobs.push(...batch);
    endless.push(...batch.filter(([id]) => id.endsWith("endless")));
    await delay(100 * random.next());
    for (let nth = 0; nth < 4; nth += 1) await withdraw(random.pick(jobs.slice(-20)), random.chance(0.8));
    // No more of them at a time than leaves handlers to the others.
    for (const job of endless.splice(0, Math.max(0, endless.length - 3))) await withdraw(job, true);
    if (round % 10 !== 9) continue;
    const name = names[made % names.length]!;
    await crew.end(name);
    crew.launch(name);
    made += 1;
  }
  for (const job of endless) await withdraw(job, true);
  const left =
    "SELECT (SELECT count(*) FROM hawser_data.queue) + (SELECT count(*) FROM hawser_data.cancellations) AS left";
  await crew.awaits("nothing is left", async () => (await rowsOf(url, left))[0]!["left"] === "0");
  // Nothing that was cancelled is still being handled: handlers end, or their sessions do.
  const open =
    "SELECT FROM pg_stat_activity WHERE query LIKE 'INSERT INTO done%' AND state LIKE 'idle in transaction%'";
  await crew.awaits("no handler is left", async () => (await rowsOf(url, open)).length === 0);
  await Promise.all(crew.names.map((each) => crew.end(each)));
  await client.end();

  const sent = await readSent(url);
  const done = await readDone(url);
  console.log(`${sent.length} messages, ${done.length} handled; asked: ${JSON.stringify(counts)}`);
  expect(crew.unasked).toEqual([]);
  expect(problems(audit(sent, done))).toEqual([]);
  expect(done.filter(({ id }) => id.endsWith("endless"))).toEqual([]);
  for (const count of Object.values(counts)) expect(count).toBeGreaterThan(0);
  expect(await rowsOf(url, "SELECT FROM hawser_data.dead_letters")).toEqual([]);
});
