/**
 * `hawser dead retry` and `hawser dead discard` of what subscribed functions have failed at, while the `hawser serve` that
 * leads is killed. The dead letter goes in the transaction in which its function is run: so it is run exactly once with
 * success.
 */
import { randomBytes } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { killsPerLoop, loopTimeoutMs, faultSeed as seed } from "./support/kills.js";
import { audit, createLedger, problems, readDone, type Sent } from "./support/ledger.js";
import { ServeGroup } from "./support/serve-group.js";
import { sqlDatabase } from "./support/sql-database.js";

const kills = killsPerLoop(5);
const perRound = 50;
const subject = `dead.${randomBytes(4).toString("hex")}`;
const isDiscarded = (n: number): boolean => n % 7 === 0;
const keepsFailing = (n: number): boolean => n % 10 === 0;

// Each call takes a moment, so that kills hit calls in progress.
const functionSql = `
  CREATE TABLE settings (heal_below integer);
  INSERT INTO settings VALUES (0);
  CREATE FUNCTION ailing(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  DECLARE n CONSTANT integer := convert_from(payload, 'UTF8')::integer;
  BEGIN
    IF n >= (SELECT heal_below FROM settings) OR n % 10 = 0 THEN RAISE EXCEPTION 'ailing: %', n; END IF;
    INSERT INTO done (consumer, id) VALUES ('ailing', n);
    PERFORM pg_sleep(0.005);
  END$$;
  SELECT nats_subscribe('${subject}', 'ailing')`;

interface Letter {
  readonly id: number;
  readonly n: number;
}

it(`what is retried runs exactly once, and what is discarded is gone, while leaders are killed (HAWSER_FAULT_SEED=${seed})`, {
  // Each round has hundreds of transactions, a takeover, and the starts of three processes.
  timeout: loopTimeoutMs(4 * kills),
}, async () => {
  const random = new Random(seed);
  await using database = await sqlDatabase(testNatsUrl());
  const { url } = database;
  await createLedger(url);
  await onServer(url, functionSql);
  const nats = await connect({ servers: testNatsUrl() });
  try {
    // A takeover repeats no message, also none that has become a dead letter: what runs is retried.
    await using group = await ServeGroup.start(url, 3, ["--tune", "takeoverBufferMs=0"]);
    const letters = async (from = 0): Promise<Letter[]> => {
      const sql =
        "SELECT id::integer, convert_from(payload, 'UTF8')::integer AS n FROM hawser_data.dead_letters ORDER BY id";
      const found = (await rowsOf(url, sql)) as unknown as Letter[];
      return found.filter(({ n }) => n >= from);
    };
    await eventually("the subscription runs", async () => {
      nats.publish(subject, "0");
      return (await letters()).length > 0;
    });
    const discarded = new Set<number>();
    for (let round = 0; round < kills; round++) {
      const first = 1 + round * perRound;
      for (let n = first; n < first + perRound; n++) nats.publish(subject, `${n}`);
      await eventually("all have failed", async () => (await letters(first)).length === perRound);
      await onServer(url, `UPDATE settings SET heal_below = ${first + perRound}`);
      const there = await letters(first);
      const gone = there.filter(({ n }) => isDiscarded(n));
      const again = there.filter(({ n }) => !isDiscarded(n));
      for (const { id } of gone) discarded.add(id);
      const leader = await group.leader();
      await command(url, "discard", gone);
      const asked = command(url, "retry", again);
      const seen = random.between(0, again.length - 10);
      const ran = `SELECT FROM done WHERE id::integer >= ${first}`;
      await eventually("some have been run", async () => (await rowsOf(url, ran)).length >= seen);
      await leader.crash();
      await asked;
      await leader.start();
      const waiting = "SELECT FROM hawser_data.queue";
      await eventually("nothing waits to be retried", async () => (await rowsOf(url, waiting)).length === 0);
      // All may have been retried before the kill; and nobody keeps what comes while nobody leads.
      await group.leader();
    }
    const left = await letters(1);
    const numbers = Array.from({ length: kills * perRound }, (_, index) => index + 1);
    const sent = numbers.map((n): Sent => {
      return {
        id: `${n}`,
        consumers: ["ailing"],
        outcome: isDiscarded(n) || keepsFailing(n) ? "withdrawn" : "confirmed",
      };
    });
    const done = await readDone(url);
    console.log(
      `${kills} kills of the leader: ${done.length} run with success, ${discarded.size} discarded, ${left.length} left`,
    );
    expect(problems(audit(sent, done))).toEqual([]);
    expect(left.filter(({ id }) => discarded.has(id))).toEqual([]);
    expect(left.map(({ n }) => n)).toEqual(numbers.filter((n) => keepsFailing(n) && !isDiscarded(n)));
  } finally {
    await nats.close();
  }
});

/** `hawser dead` in a process of its own. */
async function command(databaseUrl: string, action: "retry" | "discard", letters: readonly Letter[]): Promise<void> {
  const ids = letters.map(({ id }) => `${id}`);
  const { ended } = startProgram("src/operating/cli/main.ts", ["dead", action, ...ids], {
    env: { HAWSER_DATABASE_URL: databaseUrl },
    stdin: "ignore",
  });
  const { status, stderr } = await ended;
  expect({ status, stderr }).toMatchObject({ status: 0 });
}
