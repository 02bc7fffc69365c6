/**
 * Functions that fail, hang, or leave no way out: what becomes of the message, of the others, and of other functions.
 */

import { inspect } from "node:util";
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { optionsPollMs } from "../../src/operating/installation/foreign-data.js";
import { eventually } from "../support/eventually.js";
import { slowDescribe, slowIt } from "../support/slow-it.js";
import { withoutTimersAbove } from "../support/timers.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;

/** Long enough for what does not hang, on a machine with other work, too. */
const subscriberTimeoutMs = 1_000;

/** Time limit for functions that hang: each is tried twice. */
const hangingMs = 50_000;

// What is retried is found by its notification, as no poll comes.
beforeAll(() => withoutTimersAbove(optionsPollMs - 1));
beforeAll(async () => {
  world = await bridgeWorld({
    subscriberTimeoutMs,
    // So that those that hang do not keep the others waiting.
    subscriberSessions: 8,
    sql: `
      CREATE TABLE done (id bigserial, subject text, n text, headers jsonb);
      CREATE TABLE switches (name text PRIMARY KEY, message text);
      -- Fails for payloads as they say themselves.
      CREATE FUNCTION handle(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        word text := convert_from(payload, 'UTF8');
        how text;
      BEGIN
        IF headers ? 'Probe' THEN RETURN; END IF;
        SELECT message INTO how FROM switches WHERE name = word;
        IF word LIKE 'hang%' THEN PERFORM pg_sleep(3600); END IF;
        IF word LIKE 'cling%' THEN
          LOOP
            BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END;
          END LOOP;
        END IF;
        IF word LIKE 'notice%' THEN
          PERFORM set_config('client_min_messages', 'debug1', false);
          LOOP RAISE NOTICE '%', repeat('x', 100); END LOOP;
        END IF;
        IF word LIKE 'die%' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        IF word LIKE 'commit%' THEN COMMIT; END IF;
        IF word LIKE 'missing%' THEN RAISE EXCEPTION 'no such file' USING ERRCODE = '58P01'; END IF;
        IF word LIKE 'fail%' OR how IS NOT NULL THEN
          RAISE EXCEPTION '% is refused', coalesce(how, word) USING ERRCODE = 'ZZ001', DETAIL = 'a detail', HINT = 'a hint';
        END IF;
        INSERT INTO done (subject, n, headers) VALUES (subject, word, headers);
      END $$;
      CREATE TABLE unique_later (n text UNIQUE DEFERRABLE INITIALLY DEFERRED);
      CREATE FUNCTION later(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO unique_later SELECT convert_from(payload, 'UTF8') WHERE payload <> ''$$;
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const handle = "handle(bytea, text, jsonb)";

async function letters(subject: string): Promise<Record<string, unknown>[]> {
  return world.rows(
    `SELECT convert_from(payload, 'UTF8') AS payload, source, headers, error_code, error_message, attempts
       FROM hawser_data.dead_letters WHERE topic = $1 ORDER BY id`,
    [subject],
  );
}

const isDone = (subject: string, count: number) =>
  world.counts(count, `SELECT count(*) FROM done WHERE subject = '${subject}'`);

const isDead = (subject: string, count: number, deadlineMs?: number) =>
  eventually(
    `${count} of ${subject} are dead`,
    async () =>
      (await world.count(`SELECT count(*) FROM hawser_data.dead_letters WHERE topic = '${subject}'`)) === count,
    deadlineMs,
  );

describe("a message whose function fails", () => {
  it("becomes a dead letter with its error, alone among many others, which all are handled in order", async () => {
    const subject = `${world.prefix}.poison`;
    await world.subscribe(subject, handle);
    const given = headers();
    given.append("A", "1");
    given.append("A", "2");
    const count = 300;
    for (let n = 0; n < count; n++) {
      if (n === 187) world.nats.publish(subject, "fail", { headers: given });
      else world.nats.publish(subject, `${n}`);
    }
    await isDone(subject, count - 1);
    await isDead(subject, 1);
    expect(await letters(subject)).toEqual([
      {
        payload: "fail",
        source: "public.handle(bytea, text, jsonb)",
        headers: [
          ["A", "1"],
          ["A", "2"],
        ],
        error_code: "ZZ001",
        error_message: "fail is refused",
        attempts: expect.any(Number),
      },
    ]);
    const order = await world.value<string[]>("SELECT array_agg(n ORDER BY id) FROM done WHERE subject = $1", [
      subject,
    ]);
    expect(order.map(Number)).toEqual(Array.from({ length: count }, (_, n) => n).filter((n) => n !== 187));
  });

  it("by a constraint that is checked at COMMIT becomes one, too", async () => {
    const subject = `${world.prefix}.deferred`;
    await world.subscribe(subject, "later(bytea)");
    for (const word of ["a", "b", "a", "c", "d"]) world.nats.publish(subject, word);
    await isDead(subject, 1);
    await world.counts(4, "SELECT count(*) FROM unique_later");
    expect(await letters(subject)).toMatchObject([{ payload: "a", error_code: "23505" }]);
  });

  it("is logged, without its payload", async () => {
    const subject = `${world.prefix}.logged`;
    await world.subscribe(subject, handle);
    world.nats.publish(subject, "fail with a secret");
    await isDead(subject, 1);
    const message = "a message became a dead letter";
    const words = `public.handle(bytea, text, jsonb) on ${subject}: SQLSTATE ZZ001`;
    const told = () => world.log.lines.filter((line) => line.message === message && inspect(line).includes(subject));
    // Others see the row before its writer has its answer.
    await eventually("it is told", () => told().length > 0);
    expect(told()).toEqual([{ level: "warn", details: { client: "subscriptions", words }, message }]);
    expect(inspect(world.log.lines, { depth: 9, maxArrayLength: null })).not.toContain("a secret");
  });
});

/** Each beside others on its subject, which are handled. */
describe.concurrent("a message becomes a dead letter whose function", () => {
  const becomesOne = async (word: string, error_code: string, error_message: unknown): Promise<void> => {
    const subject = `${world.prefix}.${word}`;
    await world.subscribe(subject, handle);
    for (const each of ["one", word, "two"]) world.nats.publish(subject, each);
    await isDead(subject, 1, hangingMs);
    await isDone(subject, 2);
    expect(await letters(subject)).toMatchObject([{ payload: word, error_code, error_message }]);
  };

  it.each<[string, string, string, unknown]>([
    ["commits", "commit", "2D000", "invalid transaction termination"],
    [
      "ends its session, after two tries",
      "die",
      "57P01",
      expect.stringContaining("ended twice while the function ran for this message alone"),
    ],
    ["takes too long, after the statement timeout", "hang", "57014", "canceling statement due to statement timeout"],
    ["sends notices without end", "notice", "57P01", expect.stringContaining("notices and notifications")],
    [
      "has an error of the class of system errors, such as that of a missing file, without waiting long",
      "missing",
      "58P01",
      "no such file",
    ],
  ])("%s", (_, ...expected) => becomesOne(...expected));

  slowIt("does not end at the statement timeout either", async () => {
    await becomesOne("cling", "57014", "the function did not stop at the statement timeout; its session was closed");
    const left =
      "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%hawser_run%' AND state = 'active' AND pid <> pg_backend_pid()";
    await eventually("nothing of it runs any more", async () => (await world.count(left)) === 0, hangingMs);
  });
});

slowDescribe("a function that always fails", () => {
  it("does not delay others, nor does one that hangs", async () => {
    const [bad, slow, good] = ["bad", "slow", "good"].map((word) => `${world.prefix}.beside.${word}`);
    const hanging = 2;
    for (const subject of [bad, slow, good]) await world.subscribe(subject!, handle);
    for (let n = 0; n < 30; n++) {
      world.nats.publish(bad!, `fail ${n}`);
      if (n < hanging) world.nats.publish(slow!, `hang ${n}`);
      world.nats.publish(good!, `${n}`);
    }
    await isDone(good!, 30);
    expect((await letters(slow!)).length).toBeLessThan(hanging);
    await isDead(bad!, 30);
    await isDead(slow!, hanging, hangingMs);
    const order = await letters(bad!);
    expect(order.map(({ payload }) => payload)).toEqual(Array.from({ length: 30 }, (_, n) => `fail ${n}`));
  });
});

describe("a dead letter that is retried", () => {
  it("is handled by its notification, with its headers, and is gone; or stays, with the new error", async () => {
    await using store = await openStore({ databaseUrl: world.database.url });
    const subject = `${world.prefix}.retry`;
    await world.subscribe(subject, handle);
    await world.client.query("INSERT INTO switches VALUES ('x', 'first'), ('y', 'first')");
    const given = headers();
    given.append("A", "1");
    given.append("A", "ü");
    world.nats.publish(subject, "x", { headers: given });
    world.nats.publish(subject, "y");
    await isDead(subject, 2);
    const attempts = (await letters(subject))[1]!["attempts"] as number;
    await world.client.query("DELETE FROM switches WHERE name = 'x'; UPDATE switches SET message = 'second'");
    const ids = (
      await world.rows<{ id: string }>("SELECT id FROM hawser_data.dead_letters WHERE topic = $1 ORDER BY id", [
        subject,
      ])
    ).map(({ id }) => Number(id));
    const retried = async (wanted: readonly number[], error: string): Promise<void> => {
      const report = await store.deadLetters.retry({ ids: wanted });
      expect(report).toMatchObject(wanted.map((id) => ({ id, outcome: "enqueued" })));
      await isDone(subject, 1);
      await eventually(`the other has failed again: ${error}`, async () => {
        return (await letters(subject))[0]?.["error_message"] === `${error} is refused`;
      });
    };
    await retried(ids, "second");
    expect(await world.rows("SELECT n, headers FROM done WHERE subject = $1", [subject])).toEqual([
      { n: "x", headers: { A: ["1", "ü"] } },
    ]);
    expect(await letters(subject)).toMatchObject([{ payload: "y", attempts: attempts + 1 }]);
    await world.client.query("UPDATE switches SET message = 'third'");
    await retried(ids.slice(1), "third");
    expect(await letters(subject)).toMatchObject([{ payload: "y", attempts: attempts + 2 }]);
    // Once more, and now it works.
    await world.client.query("DELETE FROM switches");
    await store.deadLetters.retry({ ids });
    await isDone(subject, 2);
    expect(await letters(subject)).toEqual([]);
  });

  it("of a function that is not subscribed any more is refused, and does not keep others from being retried", async () => {
    await using store = await openStore({ databaseUrl: world.database.url });
    const [gone, there] = [`${world.prefix}.retry.gone`, `${world.prefix}.retry.there`];
    await world.subscribe(gone, handle);
    await world.subscribe(there, handle);
    world.nats.publish(gone, "fail");
    await isDead(gone, 1);
    // More than are retried at a time.
    await world.client.query(
      `INSERT INTO hawser_data.dead_letters
         (origin, source, topic, payload, error_code, error_message, attempts, role, handler_id)
       SELECT origin, source, topic, payload, error_code, error_message, attempts, role, handler_id
         FROM hawser_data.dead_letters, generate_series(1, 149) WHERE topic = $1`,
      [gone],
    );
    await world.client.query("INSERT INTO switches VALUES ('z', 'z')");
    world.nats.publish(there, "z");
    await isDead(there, 1);
    await world.client.query("DELETE FROM switches");
    // They are to be retried, and in the same moment there is nobody any more to do that.
    await world.client.query("BEGIN");
    await world.client.query(
      "SELECT id FROM hawser.retry_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters WHERE topic = $1 ORDER BY id LIMIT 149))",
      [gone],
    );
    await world.client.query("SELECT nats_unsubscribe($1, 'handle')", [gone]);
    await world.client.query("COMMIT");
    const report = await store.deadLetters.retry({ topic: gone, limit: 1 });
    expect(report).toMatchObject([{ outcome: "refused", code: "invalid_argument" }]);
    await store.deadLetters.retry({ topic: there });
    await isDone(there, 1);
  });
});
