/**
 * Ten processes, which all run fifty schedules of one message a second side by side, are killed in turn, and once all of them. In the end each
 * occurrence was enqueued once and has had its effect once, and those that were missed as their schedule says.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { lateMs } from "../../src/jobs-and-peers/queue/schedules/occurrences.js";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { Crew } from "./support/crew.js";
import { faultSeed, killsPerLoop, loopTimeoutMs } from "./support/kills.js";
import { audit, createLedger, problems, readDone, readSent } from "./support/ledger.js";

const kills = killsPerLoop(1);
const policies = { all: 30, one: 10, none: 10 } as const;
const names = Array.from({ length: 10 }, (_, nth) => `runner-${nth + 1}`);
/** Longer than an occurrence may be late. */
const outageMs = lateMs + 5_000;

/** Notes each occurrence that is enqueued: its schedule, its time and when that was. */
const notesSql = [
  "CREATE TABLE enqueued (name text, time timestamptz, at timestamptz)",
  `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
   BEGIN
     WITH e AS (
       INSERT INTO public.enqueued
       SELECT max(p ->> 1) FILTER (WHERE p ->> 0 = 'schedule-name'), (max(p ->> 1) FILTER (WHERE p ->> 0 = 'schedule-time'))::timestamptz, new.enqueued_at
         FROM jsonb_array_elements(new.headers) AS p
       RETURNING name, time
     )
     INSERT INTO public.sent (id, consumers) SELECT e.name || ' ' || extract(epoch FROM e.time), '{scheduled}' FROM e;
     RETURN NULL;
   END $$`,
  "CREATE TRIGGER note AFTER INSERT ON hawser_data.queue FOR EACH ROW EXECUTE FUNCTION note()",
];

it(`fifty schedules run each occurrence once, after ${kills} kills and an outage (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills) + 10 * outageMs,
}, async () => {
  const random = new Random(faultSeed);
  await using database = await testDatabase({ nats: false });
  const { url } = database;
  await createLedger(url);
  await onServer(url, ...notesSql);
  const crew = new Crew((name) =>
    startProgram("test/faults/programs/schedule-worker.ts", [name], { env: { HAWSER_DATABASE_URL: url } }),
  );
  await crew.start(...names);
  for (const [missed, count] of Object.entries(policies))
    await onServer(
      url,
      `SELECT hawser.schedule('${missed}' || n, '* * * * * *', 'scheduled', 'x', missed => '${missed}') FROM generate_series(1, ${count}) AS n`,
    );
  /** Resolves once an occurrence has run that was due after so many seconds. */
  const ranBy = async (seconds: number): Promise<void> => {
    await delay(seconds * 1_000);
    const [now] = await rowsOf(url, "SELECT clock_timestamp()::text AS now");
    const sql = `SELECT FROM done WHERE to_timestamp(split_part(id, ' ', 2)::float8) >= date_trunc('second', '${now!["now"]}'::timestamptz) LIMIT 1`;
    await crew.awaits("schedules run", async () => (await rowsOf(url, sql)).length > 0);
  };

  for (let made = 0; made < kills; made += 1) {
    await ranBy(random.next());
    const name = names[made % names.length]!;
    await crew.end(name);
    crew.launch(name);
    if (made !== Math.floor(kills / 2)) continue;
    await Promise.all(crew.names.map((each) => crew.end(each)));
    await delay(outageMs);
    for (const each of names) crew.launch(each);
  }
  await ranBy(2);
  await onServer(url, "SELECT hawser.unschedule(name) FROM hawser.schedule_status");
  const counted = 'SELECT (SELECT count(*) FROM sent) = (SELECT count(*) FROM done) AS "areDone"';
  await eventually("all have had their effects", async () => (await rowsOf(url, counted))[0]!["areDone"] === true);
  await Promise.all(crew.names.map((each) => crew.end(each)));

  const sent = await readSent(url);
  const [found] = await rowsOf(url, foundSql);
  console.log(`${kills} kills: ${JSON.stringify(found)}`);
  expect(crew.unasked).toEqual([]);
  expect(sent.length).toBeGreaterThan(50 * 10);
  expect(problems(audit(sent, await readDone(url)))).toEqual([]);
  const { missed, ...broken } = found as Record<string, number>;
  expect(missed).toBeGreaterThanOrEqual(10 + 10);
  expect(broken).toEqual({ schedules: 50, gapsOfAll: 0, gapsOfOne: 0, gapsOfNone: 0, lateOfNone: 0 });
});

/**
 * Gaps between occurrences that the policy does not explain: `all` has none; behind one of `one` is an occurrence that was missed
 * itself; those in one of `none` were missed.
 */
const foundSql = `
  WITH e AS (
    SELECT e.name, rtrim(e.name, '0123456789') AS policy, e.time, e.at, extract(epoch FROM e.time - lag(e.time) OVER (PARTITION BY e.name ORDER BY e.time)) AS step,
           e.at - e.time > interval '${lateMs} ms' AS late, e.at - (e.time - interval '1 s') > interval '${lateMs} ms' AS late_before
      FROM enqueued AS e
  )
  SELECT count(DISTINCT e.name)::float8 AS schedules, count(*) FILTER (WHERE e.step > 1)::float8 AS missed,
         count(*) FILTER (WHERE e.step <> 1 AND e.policy = 'all')::float8 AS "gapsOfAll",
         count(*) FILTER (WHERE e.step <> 1 AND e.policy = 'one' AND NOT e.late)::float8 AS "gapsOfOne",
         count(*) FILTER (WHERE e.step <> 1 AND e.policy = 'none' AND NOT e.late_before)::float8 AS "gapsOfNone",
         -- One that was on time when it was planned may be late by the commit.
         count(*) FILTER (WHERE e.policy = 'none' AND e.at - e.time > interval '${2 * lateMs} ms')::float8 AS "lateOfNone"
    FROM e`;
