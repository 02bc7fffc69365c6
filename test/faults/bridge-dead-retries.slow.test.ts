/**
 * `hawser dead retry` and `hawser dead discard` of what subscribed functions have failed at, while the `hawser serve` that
 * leads is killed. The dead letter goes in the transaction in which its function is run: so it is run exactly once with
 * success.
 */
import { randomBytes } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";
import { ServeGroup } from "./support/bridge-group.js";
import { killsPerLoop, loopTimeoutMs, faultSeed as seed } from "./support/kills.js";
import { sqlDatabase } from "./support/sql-database.js";

const kills = killsPerLoop(5);
const perRound = 50;
/** Each takes a transaction of its own, at least. */
const limitMs = 60_000;
const subject = `dead.${randomBytes(4).toString("hex")}`;

// Numbers divisible by ten keep failing. Each call takes a moment, so that kills hit calls in progress.
const functionSql = `
  CREATE TABLE ran (n integer, at timestamptz DEFAULT clock_timestamp());
  CREATE TABLE settings (heal_below integer);
  INSERT INTO settings VALUES (0);
  CREATE FUNCTION ailing(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
  DECLARE n CONSTANT integer := convert_from(payload, 'UTF8')::integer;
  BEGIN
    IF n >= (SELECT heal_below FROM settings) OR n % 10 = 0 THEN RAISE EXCEPTION 'ailing: %', n; END IF;
    INSERT INTO ran (n) VALUES (n);
    PERFORM pg_sleep(0.005);
  END$$;
  SELECT nats_subscribe('${subject}', 'ailing')`;

interface Letter {
  readonly id: number;
  readonly n: number;
}

it(
  `runs what is retried exactly once, and discards for good, while leaders are killed (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using database = await sqlDatabase(testNatsUrl());
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    const nats = await connect({ servers: testNatsUrl() });
    try {
      await client.query(functionSql);
      // A takeover repeats no message, also none that has become a dead letter: what runs is retried.
      await using group = await ServeGroup.start(database.url, 3, ["--tune", "takeoverBufferMs=0"]);
      const letters = async (more = ""): Promise<Letter[]> => {
        const sql = `SELECT id::integer, convert_from(payload, 'UTF8')::integer AS n FROM hawser_data.dead_letters ${more} ORDER BY id`;
        return (await client.query<Letter>(sql)).rows;
      };
      await eventually("the subscription runs", async () => {
        nats.publish(subject, "0");
        return (await letters()).length > 0;
      });
      const retried = new Set<number>();
      const discarded = new Set<number>();
      for (let round = 0; round < kills; round++) {
        const first = 1 + round * perRound;
        for (let n = first; n < first + perRound; n++) nats.publish(subject, `${n}`);
        const haveFailed = async (): Promise<boolean> =>
          (await letters()).filter(({ n }) => n >= first).length === perRound;
        await eventually("all have failed", haveFailed, limitMs);
        await client.query("UPDATE settings SET heal_below = $1", [first + perRound]);
        const there = (await letters()).filter(({ n }) => n >= first);
        const gone = there.filter(({ n }) => n % 7 === 0);
        const again = there.filter(({ n }) => n % 7 !== 0);
        for (const { id } of gone) discarded.add(id);
        for (const { id } of again) retried.add(id);
        const leader = await group.leader();
        await command(database.url, "discard", gone);
        const asked = command(database.url, "retry", again);
        const seen = random.between(0, again.length - 10);
        const haveRun = async (): Promise<boolean> => {
          const { rows } = await client.query("SELECT count(*)::integer AS count FROM ran WHERE n >= $1", [first]);
          return rows[0].count >= seen;
        };
        await eventually("some have been run", haveRun, limitMs);
        await leader.crash();
        await asked;
        await leader.start();
        const isDone = async (): Promise<boolean> => (await letters("WHERE retry_requested")).length === 0;
        await eventually("nothing waits to be retried", isDone, limitMs);
        // All may have been retried before the kill; and nobody keeps what comes while nobody leads.
        await group.leader();
      }
      const left = (await letters()).filter(({ n }) => n > 0);
      const { rows } = await client.query<{ n: number; count: number }>(
        "SELECT n, count(*)::integer FROM ran GROUP BY n ORDER BY n",
      );
      const numbers = Array.from({ length: kills * perRound }, (_, at) => at + 1);
      console.log(
        `dead letters under ${kills} kills of the leader: ${retried.size} retried, ${discarded.size} discarded, ` +
          `${rows.length} run with success, of which ${rows.filter(({ count }) => count > 1).length} twice, ${left.length} left`,
      );
      expect(rows.map(({ n }) => n)).toEqual(numbers.filter((n) => n % 7 !== 0 && n % 10 !== 0));
      expect(rows.filter(({ count }) => count !== 1)).toEqual([]);
      expect(left.filter(({ id }) => discarded.has(id))).toEqual([]);
      expect(left.map(({ n }) => n)).toEqual(numbers.filter((n) => n % 7 !== 0 && n % 10 === 0));
    } finally {
      await nats.close();
      await client.end();
    }
  },
  // Each round has hundreds of transactions, a takeover, and the starts of three processes.
  loopTimeoutMs(4 * kills),
);

/** `hawser dead` in a process of its own. */
async function command(databaseUrl: string, action: "retry" | "discard", letters: readonly Letter[]): Promise<void> {
  const ids = letters.map(({ id }) => `${id}`);
  const { ended } = startProgram("src/cli/main.ts", ["dead", action, ...ids], {
    env: { HAWSER_DATABASE_URL: databaseUrl },
    stdin: "ignore",
  });
  const { status, stderr } = await ended;
  expect({ status, stderr }).toMatchObject({ status: 0 });
}
