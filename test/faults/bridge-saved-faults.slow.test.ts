/**
 * Faults of processes, Postgres and NATS while messages are saved and read back.
 */
import type pg from "pg";
import { describe, expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { patienceMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import type { ServeProcess } from "./support/serve-process.js";
import { received, SlowFunction, start, stop } from "./support/slow-function.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";

const timeout = patienceMs;
const nothingWrong = { missing: 0, disordered: 0 };
/** Several statements are needed to save them: one takes 4 MiB. */
const backlog = 6_000;
const backlogBytes = 2_000;
/** Time limit that only a hang exceeds. */
const limitMs = 150_000;
const impatient = ["--stop-timeout", "20s"];

/** Publishes so many, and waits until each process has them. */
async function receives(slow: SlowFunction, serves: readonly ServeProcess[], count: number, bytes?: number) {
  const before = await Promise.all(serves.map(received));
  await slow.publish(count, 20_000, bytes);
  await eventually("they are received", async () => {
    const now = await Promise.all(serves.map(received));
    return now.every((messages, at) => messages - before[at]! >= count);
  });
}

/** The process that leads, and the others. */
async function leading(serves: readonly ServeProcess[]): Promise<[ServeProcess, ...ServeProcess[]]> {
  const leaders = async () => {
    const all = await Promise.all(serves.map((serve) => serve.metric("hawser_bridge_leading")));
    return serves.filter((_, at) => all[at] === 1);
  };
  await eventually("one leads", async () => (await leaders()).length === 1);
  const [leader] = (await leaders()) as [ServeProcess];
  return [leader, ...serves.filter((serve) => serve !== leader)];
}

/**
 * Tells a process to end, and resolves when a part of what it has is saved: the next statement waits for a lock until that
 * is released.
 */
async function savesPart(slow: SlowFunction, serve: ServeProcess): Promise<pg.Client> {
  await slow.query(`
    CREATE TABLE save_gate (open bool);
    CREATE FUNCTION wait_behind_first() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT FROM hawser_data.saved_messages) THEN PERFORM FROM public.save_gate; END IF;
      RETURN NULL;
    END $$;
    GRANT SELECT ON save_gate TO PUBLIC;
    CREATE TRIGGER wait_behind_first BEFORE INSERT ON hawser_data.saved_messages EXECUTE FUNCTION wait_behind_first()`);
  const gate = await slow.connect();
  await gate.query("BEGIN; LOCK TABLE save_gate");
  serve.signal("SIGTERM");
  await eventually("some are saved", async () => (await slow.waiting()) > 0, limitMs);
  return gate;
}

async function checked(slow: SlowFunction, what: string) {
  await slow.done(limitMs);
  const audit = await slow.audit();
  console.log(`${what}: ${slow.published} messages, ${JSON.stringify(audit)}`);
  return audit;
}

describe("a process that has received what it cannot run loses nothing of it", () => {
  it("if it is killed while it saves that, and another one has received it", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 0);
    const [leader] = await leading(await start(slow, 2, ["--stop-timeout", "4s"]));
    const gate = await slow.lock();
    await receives(slow, [leader], backlog, backlogBytes);
    const saving = await savesPart(slow, leader);
    await leader.crash();
    const saved = await slow.waiting();
    await saving.end();
    await gate.end();
    const audit = await checked(slow, `killed after ${saved} were saved`);
    // Others it had still to save.
    expect(saved).toBeLessThan(backlog);
    expect(audit).toMatchObject(nothingWrong);
  });

  it("if it is killed while it reads back what was saved: a page is repeated at most", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 1);
    const [serve] = (await start(slow, 1)) as [ServeProcess];
    const gate = await slow.lock();
    await receives(slow, [serve], 4_000);
    await stop(serve);
    await gate.end();
    expect(await slow.waiting()).toBe(4_000);
    for (const left of [3_500, 1_500]) {
      await serve.start();
      await eventually("some were read", async () => (await slow.waiting()) < left, limitMs);
      await serve.crash();
    }
    await serve.start();
    const audit = await checked(slow, "killed twice while it read them back");
    expect(audit).toMatchObject(nothingWrong);
    expect(audit.repeated).toBeLessThanOrEqual(2 * 1_000);
  });

  it("if Postgres is killed while that is saved, and while it is read back", { timeout }, async () => {
    await using postgres = await ownPostgres();
    await prepareForSql(postgres.url);
    await using slow = await SlowFunction.make(postgres.url, 0.2);
    const [serve] = (await start(slow, 1, impatient)) as [ServeProcess];
    const restart = async () => {
      await postgres.kill("SIGKILL");
      await postgres.start();
    };
    await slow.lock();
    await receives(slow, [serve], backlog, backlogBytes);
    await savesPart(slow, serve);
    // The locks go with it.
    await restart();
    expect((await serve.ended).status).toBe(0);
    expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
    const saved = await slow.waiting();
    await serve.start();
    await eventually("some were read", async () => (await slow.waiting()) < saved - 1_500, limitMs);
    await restart();
    const audit = await checked(slow, `Postgres killed while ${saved} were saved and read back`);
    expect(audit).toMatchObject(nothingWrong);
  });

  it("if NATS is killed while that is saved, and while it is read back", { timeout }, async () => {
    await using nats = await startNatsServer();
    await using database = await sqlDatabase(nats.url);
    await using slow = await SlowFunction.make(database.url, 0.2, nats.url);
    const [serve] = (await start(slow, 1, impatient)) as [ServeProcess];
    const gate = await slow.lock();
    await receives(slow, [serve], backlog, backlogBytes);
    const saving = await savesPart(slow, serve);
    await nats.kill();
    await saving.end();
    await serve.ended;
    expect(serve.log.filter(({ level }) => level === "error")).toEqual([]);
    await gate.end();
    await nats.restart();
    const saved = await slow.waiting();
    await serve.start();
    await eventually("some were read", async () => (await slow.waiting()) < saved - 1_500, limitMs);
    await nats.kill();
    await nats.restart();
    const audit = await checked(slow, `NATS killed while ${saved} were saved and read back`);
    expect(audit).toMatchObject(nothingWrong);
  });
});

describe("a leader that stands still beside one that was restarted", () => {
  it("hands over what only it has received, when it goes on", { timeout }, async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using slow = await SlowFunction.make(database.url, 3);
    const serves = await start(slow, 2);
    const [leader, other] = await leading(serves);
    await slow.publish(3_000, 4_000);
    await stop(other!);
    await slow.publish(500, 2_000);
    const onlyLeaders = slow.published;
    await other!.start();
    slow.begin(200);
    await eventually("it receives", async () => (await received(other!)) > 0);
    leader.signal("SIGSTOP");
    try {
      await eventually("the other one leads", async () => (await other!.metric("hawser_bridge_leading")) === 1);
    } finally {
      leader.signal("SIGCONT");
    }
    await eventually("it leads no more", async () => (await leader.metric("hawser_bridge_leading")) === 0);
    await slow.ends();
    const audit = await checked(slow, "a leader stood still beside a newcomer");
    expect(audit.missing).toBe(0);
    // Repeated messages are at most one batch that only the leader had received, and whose commit it had not learned of.
    const repeated = `SELECT n FROM ran WHERE n <= ${onlyLeaders} GROUP BY n HAVING count(*) > 1`;
    expect((await slow.query(repeated)).length).toBeLessThanOrEqual(1_000);
  });
});
