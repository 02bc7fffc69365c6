/**
 * What a process has received and cannot run is saved in a table when it ends, and read back by the next; and what the leader has not
 * run is kept by others for a takeover. Meanwhile processes stop, are killed or stand still, as do Postgres and NATS.
 */
import type pg from "pg";
import { describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { patienceMs } from "./support/kills.js";
import { type Findings, numberOf, problemsBesideRepeats } from "./support/ledger.js";
import { ownPostgres } from "./support/own-postgres.js";
import type { ServeProcess } from "./support/serve-process.js";
import { SlowFunction } from "./support/slow-function.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";

const timeout = patienceMs;
/** Several statements are needed to save them: one takes 4 MiB. */
const backlog = 6_000;
const backlogBytes = 2_000;
/** Time limit that only a hang exceeds. */
const limitMs = 150_000;
const impatient = ["--stop-timeout", "20s"];
const rounds = atDepth(1);

/**
 * Tells a process to end, and resolves when a part of what it has is saved: the next statement waits for a lock until that
 * is released.
 */
async function savesPart(slow: SlowFunction, serve: ServeProcess): Promise<pg.Client> {
  await slow.query(`
    CREATE TABLE save_gate (open bool);
    CREATE FUNCTION wait_behind_first() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT FROM hawser_bridge_data.saved_messages) THEN PERFORM FROM public.save_gate; END IF;
      RETURN NULL;
    END $$;
    GRANT SELECT ON save_gate TO PUBLIC;
    CREATE TRIGGER wait_behind_first BEFORE INSERT ON hawser_bridge_data.saved_messages EXECUTE FUNCTION wait_behind_first()`);
  const gate = await slow.connect();
  await gate.query("BEGIN; LOCK TABLE save_gate");
  serve.signal("SIGTERM");
  await eventually("some are saved", async () => (await slow.saved()) > 0, limitMs);
  return gate;
}

/** Each message has run, and for the first time in order. */
function expectAll(slow: SlowFunction, found: Findings): void {
  console.log(`${slow.published} messages, ${found.twice.length} repeated`);
  expect(problemsBesideRepeats(found)).toEqual([]);
}

describe("what a process has received and cannot run is not lost", () => {
  it(`when three processes are restarted in order, one after the other (${rounds} rounds)`, {
    timeout: patienceMs + rounds * 300_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 2);
    await using group = await slow.serve(3);
    // Two pages of the table.
    slow.keepWaiting(2_000);
    for (let round = 0; round < rounds; round += 1) {
      for (const serve of group.members) {
        const before = await serve.received();
        await eventually("it has a backlog", async () => (await serve.received()) >= before + 1_000);
        await serve.stop();
        await serve.start();
        await slow.reaches(serve);
      }
    }
    await slow.ends();
    expectAll(slow, await slow.finish(60_000 + slow.published * 5));
  });

  it("when it is killed while it saves that, and another one has received it", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0);
    await using group = await slow.serve(2, ["--stop-timeout", "4s"]);
    const leader = await group.leader();
    const gate = await slow.lock();
    await slow.publishFor([leader], backlog, backlogBytes);
    const saving = await savesPart(slow, leader);
    await leader.crash();
    const saved = await slow.saved();
    await saving.end();
    await gate.end();
    expectAll(slow, await slow.finish());
    // Others it had still to save.
    expect(saved).toBeLessThan(backlog);
  });

  it("when it is killed while it reads back what was saved: a page is repeated at most", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 1);
    await using group = await slow.serve(1);
    const [serve] = group.members as [ServeProcess];
    const gate = await slow.lock();
    await slow.publishFor([serve], 4_000);
    await serve.stop();
    await gate.end();
    expect(await slow.saved()).toBe(4_000);
    for (const left of [3_500, 1_500]) {
      await serve.start();
      await eventually("some were read", async () => (await slow.saved()) < left, limitMs);
      await serve.crash();
    }
    await serve.start();
    const found = await slow.finish();
    expectAll(slow, found);
    expect(found.twice.length).toBeLessThanOrEqual(2 * 1_000);
  });

  it.each(["Postgres", "NATS"])(
    "when %s is killed while that is saved, and while it is read back",
    {
      timeout,
    },
    async (victim) => {
      await using postgres = await ownPostgres();
      await using nats = await startNatsServer();
      await prepareForSql(postgres.url, nats.url);
      await using slow = await SlowFunction.make(postgres.url, 0.2, nats.url);
      await using group = await slow.serve(1, impatient);
      const [serve] = group.members as [ServeProcess];
      const isPostgres = victim === "Postgres";
      const gate = await slow.lock();
      await slow.publishFor([serve], backlog, backlogBytes);
      const saving = await savesPart(slow, serve);
      // It saves the rest with Postgres, once that is there again, and without NATS.
      if (isPostgres) await postgres.kill("SIGKILL").then(() => postgres.start());
      else await nats.kill();
      await saving.end();
      const { status } = await serve.ended;
      if (isPostgres) expect(status).toBe(0);
      expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
      await gate.end();
      if (!isPostgres) await nats.restart();
      const saved = await slow.saved();
      await serve.start();
      await eventually("some were read", async () => (await slow.saved()) < saved - 1_500, limitMs);
      if (isPostgres) await postgres.kill("SIGKILL").then(() => postgres.start());
      else await nats.kill().then(() => nats.restart());
      expectAll(slow, await slow.finish());
    },
  );

  it("when it leads and stands still beside one that was restarted", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 3);
    await using group = await slow.serve(2);
    const leader = await group.leader();
    const [other] = group.others as [ServeProcess];
    await slow.publish(3_000, 4_000);
    await other.stop();
    await slow.publish(500, 2_000);
    const onlyLeaders = slow.published;
    await other.start();
    slow.begin(200);
    await eventually("it receives", async () => (await other.received()) > 0);
    leader.signal("SIGSTOP");
    try {
      await eventually("the other one leads", () => other.leads());
    } finally {
      leader.signal("SIGCONT");
    }
    await eventually("it leads no more", async () => !(await leader.leads()));
    await slow.ends();
    const found = await slow.finish();
    expect(problemsBesideRepeats({ ...found, late: [] })).toEqual([]);
    // Repeated messages are at most one batch that only the leader had received, and whose commit it had not learned of.
    const repeated = found.twice.filter((finding) => numberOf(finding) <= onlyLeaders);
    expect(repeated.length).toBeLessThanOrEqual(1_000);
  });
});

describe("a takeover beside a subscription that stands still", () => {
  /** Number of messages that have run and are known to have, and of the last ones before the leader is killed. */
  const [known, newest] = [2_000, 100];
  /** Each takes more room than all those that stand still. */
  const messageBytes = 10_000;
  /** Both processes lead once before they are killed. */
  const takeovers = Math.max(2, atDepth(2));

  it(`repeats nothing of others that is known to have run, and loses nothing (${takeovers} takeovers)`, {
    timeout: patienceMs + takeovers * 60_000,
  }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0);
    const blocked = `${slow.subject}.blocked`;
    await slow.query(`
      CREATE TABLE barrier ();
      CREATE FUNCTION pass(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM FROM barrier;
        INSERT INTO done (consumer, id) VALUES ('blocked', convert_from(payload, 'UTF8'));
      END $$;
      SELECT nats_subscribe('${blocked}', 'pass')`);
    await using group = await slow.serve(2, ["--tune", "takeoverBufferMs=1s"]);
    const barrier = await slow.connect();
    await barrier.query("BEGIN; LOCK TABLE barrier");
    const hasRun = async (consumer: string, id: number): Promise<boolean> =>
      (await slow.query(`SELECT FROM done WHERE consumer = '${consumer}' AND id = '${id}'`)).length > 0;
    const areKnown = new Set<number>();
    let leader = await group.leader();
    let [other] = group.others as [ServeProcess];
    for (let takeover = 0; takeover < takeovers; takeover += 1) {
      // A killed process loses messages that only it had received, so each round has a message that both processes have.
      slow.publishTo(blocked, `${takeover}`);
      for (let n = slow.published + 1; n <= slow.published + known; n += 1) areKnown.add(n);
      await slow.publish(known, 10_000, messageBytes);
      await eventually("the other one has received them", async () => (await other.received()) >= known);
      await eventually("they have run", () => hasRun("slow", slow.published));
      await eventually("the other one keeps only what stands still", async () => {
        const bytes = await other.metric("hawser_bridge_standby_buffer_bytes");
        return bytes > 0 && bytes < messageBytes;
      });
      await slow.publish(newest, 1_000, messageBytes);
      await leader.crash();
      await eventually("the other one leads", () => other.leads());
      await leader.start();
      await slow.reaches(leader);
      [leader, other] = [other, leader];
    }
    await barrier.query("ROLLBACK");
    await barrier.end();
    const found = await slow.finish();
    await eventually("the last one that stood still has run", () => hasRun("blocked", takeovers - 1));
    expectAll(slow, found);
    expect(found.twice.filter((finding) => areKnown.has(numberOf(finding)))).toEqual([]);
  });
});
