/**
 * One subscription stands still, behind a lock, while another one goes on: a takeover repeats little of that one.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import { SlowFunction, start } from "./support/slow-function.js";
import { sqlDatabase } from "./support/sql-database.js";

const perSecond = 300;
const marginMs = 1_000;
/** Until the others know of what is done: a beat, a look at it, and what one of them may be late by. */
const knownAfterMs = 3_000;
const rounds = Math.max(1, atDepth(4));

it(`takeovers beside a lane that stands still (${rounds}, at ${perSecond}/s) repeat what came since the last beats, and lose nothing`, {
  timeout: patienceMs + rounds * 60_000,
}, async () => {
  await using database = await sqlDatabase(testNatsUrl());
  await using slow = await SlowFunction.make(database.url, 0);
  const blocked = `${slow.subject}.blocked`;
  await slow.query(`
    CREATE TABLE barrier ();
    CREATE TABLE passed (n int);
    CREATE FUNCTION pass(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM FROM barrier;
      INSERT INTO passed VALUES (convert_from(payload, 'UTF8')::int);
    END $$;
    SELECT nats_subscribe('${blocked}', 'pass')`);
  const serves = await start(slow, 2, ["--takeover-buffer-ms", `${marginMs}`]);
  const leading = async () => {
    for (const serve of serves) if ((await serve.metric("hawser_bridge_leading")) === 1) return serve;
    return undefined;
  };
  await eventually("one leads", async () => (await leading()) !== undefined);
  const barrier = await slow.connect();
  await barrier.query("BEGIN; LOCK TABLE barrier");
  slow.begin(perSecond);
  const repeated: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    // What only a process had that is killed is gone with it, so each round has a message that both have.
    slow.publishTo(blocked, [`${round}`]);
    await delay(12_000);
    const { repeated: before } = await slow.audit();
    const leader = (await leading())!;
    await leader.crash();
    await eventually("the other one leads", async () => {
      const other = serves.find((serve) => serve !== leader)!;
      return (await other.metric("hawser_bridge_leading")) === 1;
    });
    await leader.start();
    await delay(3_000);
    repeated.push((await slow.audit()).repeated - before);
  }
  await slow.ends();
  await barrier.query("ROLLBACK");
  await barrier.end();
  await slow.done(60_000);
  await eventually(
    "the last one that stood still has run",
    async () => (await slow.count(`SELECT count(*) FROM passed WHERE n = ${rounds - 1}`)) > 0,
  );
  const audit = await slow.audit();
  console.log(
    `a lane stands still: ${slow.published} messages, repeated by each takeover ${repeated.join(", ")}, ${JSON.stringify(audit)}`,
  );
  expect(audit).toMatchObject({ missing: 0, disordered: 0 });
  for (const each of repeated) expect(each).toBeLessThan((perSecond * (marginMs + knownAfterMs)) / 1_000);
});
