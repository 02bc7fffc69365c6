/**
 * A subscription is blocked by a lock while another one makes progress: a takeover repeats few messages of the other one.
 */
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import type { ServeProcess } from "./support/serve-process.js";
import { received, SlowFunction, start } from "./support/slow-function.js";
import { sqlDatabase } from "./support/sql-database.js";

/** Number of messages that have run and are known to have, and of the last ones before the leader is killed. */
const [known, newest] = [2_000, 100];
/** Each takes more room than all those that stand still. */
const messageBytes = 10_000;
/** Both processes lead once before they are killed. */
const rounds = Math.max(2, atDepth(2));

it(`takeovers beside a lane that stands still (${rounds}) repeat nothing that the others know to have run, and lose nothing`, {
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
  const serves = await start(slow, 2, ["--tune", "takeoverBufferMs=1s"]);
  const leads = async (serve: ServeProcess) => (await serve.metric("hawser_bridge_leading")) === 1;
  const buffered = (serve: ServeProcess) => serve.metric("hawser_bridge_standby_buffer_bytes");
  const barrier = await slow.connect();
  await barrier.query("BEGIN; LOCK TABLE barrier");
  const knownNumbers: { readonly from: number; readonly to: number }[] = [];
  let [leader, other] = serves as [ServeProcess, ServeProcess];
  await eventually("one leads", async () => (await leads(leader)) || (await leads(other)));
  if (await leads(other)) [leader, other] = [other, leader];
  for (let round = 0; round < rounds; round += 1) {
    // A killed process loses messages that only it had received, so each round has a message that both processes have.
    slow.publishTo(blocked, [`${round}`]);
    const from = slow.published + 1;
    await slow.publish(known, 10_000, messageBytes);
    knownNumbers.push({ from, to: slow.published });
    await eventually("the other one has received them", async () => (await received(other)) >= known);
    await eventually(
      "they have run",
      async () => (await slow.count("SELECT max(n) AS count FROM ran")) >= slow.published,
    );
    await eventually("the other one keeps only what stands still", async () => {
      const bytes = await buffered(other);
      return bytes > 0 && bytes < messageBytes;
    });
    await slow.publish(newest, 1_000, messageBytes);
    await leader.crash();
    await eventually("the other one leads", () => leads(other));
    await leader.start();
    await eventually("it receives again", async () => {
      await slow.probe();
      return (await received(leader)) > 0;
    });
    [leader, other] = [other, leader];
  }
  await barrier.query("ROLLBACK");
  await barrier.end();
  await slow.done(60_000);
  await eventually(
    "the last one that stood still has run",
    async () => (await slow.count(`SELECT count(*) FROM passed WHERE n = ${rounds - 1}`)) > 0,
  );
  const audit = await slow.audit();
  console.log(`a lane stands still: ${slow.published} messages, ${JSON.stringify(audit)}`);
  expect(audit).toMatchObject({ missing: 0, disordered: 0 });
  for (const { from, to } of knownNumbers) {
    const repeated = `SELECT n FROM ran WHERE n BETWEEN ${from} AND ${to} GROUP BY n HAVING count(*) > 1`;
    expect(await slow.query(repeated)).toEqual([]);
  }
});
