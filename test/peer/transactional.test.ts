/**
 * Transactional handlers: what they write at `message.client` and the message's being done are one commit.
 */

import pg from "pg";
import { beforeEach, describe, expect, it } from "vitest";
import { enqueue, type Message, monitor } from "../../src/jobs-and-peers/peer/index.js";
import type { Transaction } from "../../src/jobs-and-peers/store/index.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { failure } from "./support/errors.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler } from "./support/world.js";

const world = sharedPeerWorld();

const retry = { attempts: 3, delayMs: 5 };
const transactional = { transactional: true, defaults: { retry } };

beforeEach(() => world.query("CREATE TABLE ledger (id bigserial, what text)"));

async function ledger(): Promise<string[]> {
  return (await world.query<{ what: string }>("SELECT what FROM ledger ORDER BY id")).map(({ what }) => what);
}

async function cursor(): Promise<number | undefined> {
  return (await world.query<{ number: number }>("SELECT number FROM hawser_peer_data.cursors"))[0]?.number;
}

/** Writes the message's text. */
const write: Handler = async ({ client, payload }) => {
  await client.query("INSERT INTO ledger (what) VALUES ($1)", [Buffer.from(payload).toString()]);
};

describe("a transactional handler", () => {
  it("commits what it wrote with the end of its message, in order, and the sender hears stored", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, write);
    const receipts = await Promise.all(["x", "y", "z"].map((text) => a.send("b", text)));
    expect(receipts).toMatchObject(Array(3).fill({ peer: "b-1", outcome: "stored" }));
    await world.handled();
    expect(await ledger()).toEqual(["x", "y", "z"]);
    expect(await cursor()).toBe(3);
  });

  it("deletes what is enqueued with what it wrote", async () => {
    await world.working("b-1", transactional, write);
    for (const payload of ["x", "y", "z"]) await enqueue(world, "b", payload, { key: "k" });
    await world.handled();
    expect(await ledger()).toEqual(["x", "y", "z"]);
  });

  it("leaves nothing behind when it throws, and what it wrote once when it is tried again", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, async ({ client, attempt }) => {
      await client.query("INSERT INTO ledger (what) VALUES ($1)", [`attempt ${attempt}`]);
      if (attempt < 3) throw new Error("not yet");
    });
    await a.send("b", "x");
    await eventually("it is done", async () => (await ledger()).length > 0);
    expect(await ledger()).toEqual(["attempt 3"]);
  });

  it("that never succeeds makes a dead letter, and the next message is handled", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, async (message) => {
      if (message.payload[0] === 0x78) throw new Error("never");
      await write(message);
    });
    await Promise.all([a.send("b", "x"), a.send("b", "y")]);
    expect(await world.deadLetters(1)).toMatchObject([{ error_message: "Error: never", attempts: 3 }]);
    await eventually("the next is done", async () => (await ledger()).length === 1);
    expect(await ledger()).toEqual(["y"]);
  });

  it("has a transaction for an at-most-once message, too", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", transactional, async (message) => {
      await write(message);
      if (message.payload[0] === 0x78) throw new Error("no");
    });
    await a.send("b", "first");
    await a.send("b", "x", { delivery: "at-most-once" });
    expect(await b.saw("dead_letter")).toMatchObject({ stored: false, code: "handler_failed" });
    await a.send("b", "y", { delivery: "at-most-once" });
    await eventually("the good one is there", async () => (await ledger()).includes("y"));
    expect(await ledger()).toEqual(["first", "y"]);
  });

  it("sends outside of its transaction, once for each attempt", async () => {
    const a = await world.started("a-1");
    const b = world.peer("b-1", transactional);
    await b.record(async (message) => {
      await write(message);
      await b.send("a", `attempt ${message.attempt}`);
      throw new Error("no");
    });
    await a.send("b", "x");
    await world.deadLetters(1);
    await a.received.length(3);
    expect(a.texts).toEqual(["attempt 1", "attempt 2", "attempt 3"]);
    expect(await ledger()).toEqual([]);
  });

  it("that takes longer than timeoutMs writes nothing any more", async () => {
    const a = await world.started("a-1");
    const late: unknown[] = [];
    const held = gate();
    await world.started(
      "b-1",
      { ...transactional, defaults: { retry, timeoutMs: 50 } },
      async ({ client, attempt }) => {
        if (attempt > 1) return;
        await held.opened;
        await client.query("INSERT INTO ledger (what) VALUES ('late')").catch((error) => late.push(error));
      },
    );
    await a.send("b", "x");
    await world.handled();
    held.open();
    await eventually("the late statement has failed", () => late.length === 1);
    expect(await ledger()).toEqual([]);
  });

  it("whose session ends is tried again, and is done at the last attempt", async () => {
    const a = await world.started("a-1");
    const attempts: number[] = [];
    await world.started("b-1", transactional, async ({ client, attempt }) => {
      attempts.push(attempt);
      await client.query("INSERT INTO ledger (what) VALUES ('x')");
      if (attempts.length <= 2) await client.query("SELECT pg_terminate_backend(pg_backend_pid())");
    });
    await a.send("b", "x");
    await world.handled();
    expect(await ledger()).toEqual(["x"]);
    expect(attempts).toEqual([1, 2, 3]);
    expect(await world.deadLetters(0)).toEqual([]);
  });

  it.each([
    [
      "ends it",
      "terminating connection due to administrator command",
      (client: Transaction) => client.query("SELECT pg_terminate_backend(pg_backend_pid())"),
    ],
    [
      "takes longer than idle_in_transaction_session_timeout",
      "the setting idle_in_transaction_session_timeout of the role, the database or the server has ended the session",
      async (client: Transaction) => {
        await client.query("SET LOCAL idle_in_transaction_session_timeout = 20");
        await new Promise((resolve) => client.once("end", resolve));
      },
    ],
  ])(
    "that %s, its session, is a dead letter after retry.attempts starts, which says why, and the next message goes on",
    async (_, why, end) => {
      const a = await world.started("a-1");
      const attempts: number[] = [];
      const b = await world.started("b-1", transactional, async (message) => {
        if (message.payload[0] === 0x79) return write(message);
        attempts.push(message.attempt);
        await write(message);
        await end(message.client);
      });
      await Promise.all([a.send("b", "x"), a.send("b", "y")]);
      const [letter] = await world.deadLetters(1);
      expect(letter).toMatchObject({ error_code: "handler_crashed", attempts: 3 });
      expect(letter?.["error_message"]).toMatch(/^the Postgres session ended while its handler was running: /);
      expect(letter?.["error_message"]).toContain(why);
      expect(attempts).toEqual([1, 2, 3]);
      await eventually("the next one is done", async () => (await ledger()).length > 0);
      expect(await ledger()).toEqual(["y"]);
      const failed = b.statuses.all.flatMap((status) => (status.kind === "attempt_failed" ? [status] : []));
      expect(failed.map(({ code, attempt }) => [code, attempt])).toEqual(
        [1, 2, 3].map((attempt) => ["handler_crashed", attempt]),
      );
    },
  );

  slowIt("that ends its session is counted over a restart of its process", async () => {
    const a = await world.started("a-1");
    const attempts: number[] = [];
    const handler: Handler = async ({ client, attempt }) => {
      attempts.push(attempt);
      await client.query("SELECT pg_terminate_backend(pg_backend_pid())");
    };
    const slow = { ...transactional, defaults: { retry: { attempts: 4, delayMs: 300 } } };
    const b = await world.started("b-1", slow, handler);
    const sent = a.send("b", "x");
    await eventually("it has begun twice", () => attempts.length === 2);
    await b.stop();
    await b.startWith(handler);
    await sent;
    expect(await world.deadLetters(1)).toMatchObject([{ error_code: "handler_crashed", attempts: 4 }]);
    expect(attempts).toEqual([1, 2, 3, 4]);
  });
});

describe("transactional handlers of one channel", () => {
  const sixteen = { ...transactional, concurrency: 16, poolSize: 17 };

  /** Enqueues these, each with a key or none, in one transaction. */
  async function enqueueAll(messages: readonly { readonly payload: string; readonly key?: string }[]): Promise<void> {
    const client = new pg.Client({ connectionString: world.url });
    await client.connect();
    await client.query("BEGIN");
    for (const { payload, ...options } of messages) await enqueue(client, "b", payload, options);
    await client.query("COMMIT");
    await client.end();
  }

  const numbered = (count: number) => Array.from({ length: count }, (_, number) => String(number));

  it("run side by side for what is enqueued without a key", async () => {
    let inside = 0;
    const full = gate();
    await world.working("b-1", sixteen, async (message) => {
      inside += 1;
      if (inside === 16) full.open();
      // Fewer at a time would wait for ever.
      await full.opened;
      await write(message);
    });
    await enqueueAll(numbered(40).map((payload) => ({ payload })));
    await eventually("all are done", async () => (await ledger()).length === 40);
    expect(new Set(await ledger()).size).toBe(40);
    await world.handled();
  });

  it("keep the order of each key, and one that fails holds up its own key only", async () => {
    let failed = 0;
    await world.working("b-1", { ...sixteen, defaults: { retry: { attempts: 5 } } }, async (message) => {
      const text = Buffer.from(message.payload).toString();
      if (text === "a0" && failed < 4) {
        failed += 1;
        // Each attempt waits for others.
        await eventually("others are done", async () => (await ledger()).length >= (failed * 75) / 4);
        throw new Error("not yet");
      }
      await write(message);
    });
    const keys = Array.from({ length: 26 }, (_, index) => String.fromCharCode(97 + index));
    await enqueueAll([0, 1, 2].flatMap((nth) => keys.map((key) => ({ payload: `${key}${nth}`, key }))));
    await eventually("all are done", async () => (await ledger()).length === 78);
    const done = await ledger();
    expect(done.slice(75)).toEqual(["a0", "a1", "a2"]);
    for (const key of keys) {
      expect(done.filter((text) => text.startsWith(key))).toEqual([0, 1, 2].map((nth) => `${key}${nth}`));
    }
  });

  /** 101 messages, of which the first waits to be tried again when its peer stops. */
  async function stopWhileOneWaits(isEnqueued: boolean): Promise<void> {
    const handled: string[] = [];
    const handler = (message: Message): void => {
      const text = Buffer.from(message.payload).toString();
      handled.push(text);
      if (text === "0" && handled.length < 200) throw new Error("not yet");
    };
    const b = world.peer("b-1", isEnqueued ? sixteen : {});
    const retry = { attempts: 1_000, delayMs: 1_000, factor: 1 };
    await b.handle("b", { retry }, handler);
    await b.start();
    const a = await world.started("a-1");
    if (isEnqueued) await enqueueAll(numbered(101).map((payload) => ({ payload })));
    else for (const payload of numbered(101)) void a.send("b", payload, { key: payload }).catch(() => undefined);
    await eventually("all were begun", () => new Set(handled).size === 101);
    await b.stop();
    expect(await world.query("SELECT FROM hawser_data.queue")).toHaveLength(1);
    handled.splice(0, handled.length, ...Array.from({ length: 200 }, () => "before"));
    await b.start();
    await eventually("the first is done", async () => handled.length > 200 && (await world.storedMessages()) === 0);
    expect(handled.slice(200)).toEqual(["0"]);
  }

  it("are not repeated after a stop while one message waits to be tried again: sent with keys", () =>
    stopWhileOneWaits(false));
  slowIt("are not repeated after a stop while one message waits to be tried again: enqueued", () =>
    stopWhileOneWaits(true),
  );
});

it("handlers of several topics take turns at the connections of their process, however busy one of them is", async () => {
  const begun: string[] = [];
  const gates = Array.from({ length: 14 }, gate);
  const handler =
    (topic: string): Handler =>
    async () => {
      await gates[begun.push(topic) - 1]!.opened;
    };
  // A pool of their own, with two connections for handlers.
  const databaseUrl = `${world.url}?application_name=turns`;
  const workers = await Promise.all(
    ["busy", "charges"].map((topic) =>
      world.working(`${topic}-1`, { ...transactional, databaseUrl, concurrency: 10, poolSize: 3 }, handler(topic)),
    ),
  );
  const waiting = async (worker: number, handlers: number) =>
    eventually("they wait for a connection", async () => {
      const page = await (await monitor(workers[worker]!)({ url: "/metrics" })).text();
      return new RegExp(`^hawser_peer_running_handlers\\{[^}]*\\} ${handlers}$`, "m").test(page);
    });
  // From here on both know the names of their topics: what is taken waits for a connection at once.
  for (const topic of ["busy", "charges"]) await enqueue(world, topic, "x");
  await eventually("both have handled one", () => begun.length === 2);
  for (const each of gates.splice(0, 2)) each.open();
  await waiting(0, 0);
  await waiting(1, 0);
  begun.length = 0;
  for (let sent = 0; sent < 10; sent += 1) await enqueue(world, "busy", "x");
  await waiting(0, 10);
  for (let sent = 0; sent < 2; sent += 1) await enqueue(world, "charges", "x");
  await waiting(1, 2);
  for (const [index, each] of gates.entries()) {
    await eventually("the next one has begun", () => begun.length === Math.min(index + 2, 12));
    each.open();
  }
  // Two at a time: the first connection that is free goes to who has none.
  expect(begun).toEqual(["busy", "busy", "charges", "busy", "charges", ...Array(7).fill("busy")]);
});

it("message.client without transactional: true says what is missing", async () => {
  const a = await world.started("a-1");
  const seen: unknown[] = [];
  await world.started("b-1", {}, async (message) => {
    seen.push(await failure("not_supported", () => message.client));
  });
  await a.send("b", "x");
  await eventually("the handler has tried", () => seen.length === 1);
  expect(String(seen[0])).toContain("transactional: true");
});

describe("a transactional handler that goes wrong", () => {
  const retry = { attempts: 2, delayMs: 5 };
  const transactional = { transactional: true, defaults: { retry } };

  it.each([
    ["a statement's error that it swallowed", "INSERT INTO taken VALUES (1)", /its error was caught: let it throw/],
    ["a constraint that fails at the commit", "INSERT INTO child VALUES (7)", /foreign key/],
  ])("has failed, by %s", async (_, statement, message) => {
    await world.query("CREATE TABLE taken (id int PRIMARY KEY)");
    await world.query("INSERT INTO taken VALUES (1)");
    await world.query("CREATE TABLE child (id int REFERENCES taken DEFERRABLE INITIALLY DEFERRED)");
    const a = await world.started("a-1");
    let calls = 0;
    await world.started("b-1", transactional, async ({ client }) => {
      calls += 1;
      await client.query(statement).catch(() => undefined);
    });
    await a.send("b", "x");
    const [letter] = await world.deadLetters(1);
    expect(calls).toBe(2);
    expect(letter?.["error_message"]).toMatch(message);
  });

  it("has failed, by its own COMMIT or ROLLBACK, before that has any effect, and the error says what to do", async () => {
    const statements = [
      "COMMIT",
      "COMMIT; BEGIN",
      "COMMIT AND CHAIN",
      "ROLLBACK",
      "ROLLBACK; BEGIN",
      "ROLLBACK AND CHAIN",
    ];
    const a = await world.started("a-1");
    const b = await world.started("b-1", transactional, async (message) => {
      await write(message);
      await message.client.query(message.text());
    });
    await Promise.all(statements.map((statement) => a.send("b", statement)));
    const letters = await world.deadLetters(statements.length);
    expect(letters.map(({ payload }) => String(payload))).toEqual(statements);
    for (const letter of letters) {
      expect(letter).toMatchObject({ error_code: "handler_failed", attempts: 2 });
      expect(letter["error_message"]).toMatch(/Hawser commits the transaction of a handler.*SAVEPOINT/);
    }
    expect(await ledger()).toEqual([]);
    expect(b.statuses.all.filter(({ kind }) => kind === "listener_store_error")).toEqual([]);
  });

  it("is done, and not tried again, if it has committed in a way that is only seen afterwards", async () => {
    const b = await world.working("b-1", transactional, async (message) => {
      await write(message);
      // Not through the client.
      await new Promise<void>((resolve, reject) =>
        (pg.Client.prototype.query as (text: string, called: (error: Error | null) => void) => void).call(
          message.client,
          "COMMIT; BEGIN",
          (error) => (error ? reject(error) : resolve()),
        ),
      );
      await write(message);
    });
    await enqueue(world, "b", "x");
    expect(await b.saw("attempt_failed")).toMatchObject({
      code: "handler_failed",
      message: expect.stringContaining("has committed"),
    });
    await eventually("it is done", async () => (await world.storedMessages()) === 0);
    expect([b.received.all.length, await ledger(), await world.deadLetters(0)]).toEqual([1, ["x"], []]);
  });

  it.each(["Drizzle", "Kysely", "Knex"])(
    "may use the transaction() of %s, which is a part of its own",
    async (library) => {
      const insert = (what: string) => `INSERT INTO ledger (what) VALUES ('${what}')`;
      /** Runs a transaction that commits, and one that fails. */
      const both = async (
        transaction: (work: (run: (text: string) => PromiseLike<unknown>) => Promise<void>) => Promise<unknown>,
      ) => {
        await transaction(async (run) => void (await run(insert("kept"))));
        const failing = transaction(async (run) => {
          await run(insert("rolled back"));
          await run("SELECT 1 / 0");
        });
        await expect(failing).rejects.toThrow();
      };
      const b = await world.working("b-1", transactional, async (message) => {
        const { client } = message;
        if (library === "Drizzle") {
          const { drizzle } = await import("drizzle-orm/node-postgres");
          const { sql } = await import("drizzle-orm");
          await both((work) => drizzle(client).transaction((tx) => work((text) => tx.execute(sql.raw(text)))));
        } else if (library === "Kysely") {
          const { Kysely, PostgresDialect, sql } = await import("kysely");
          const pool = { connect: async () => client, end: async () => undefined };
          const db = new Kysely({ dialect: new PostgresDialect({ pool }) });
          await both((work) => db.transaction().execute((trx) => work((text) => sql.raw(text).execute(trx))));
        } else {
          const { default: knex } = await import("knex");
          const db = knex({ client: "pg" });
          await both((work) => db.transaction((trx) => work((text) => trx.raw(text)), { connection: client } as never));
          await db.destroy();
        }
        await write(message);
        if (message.attempt === 1) throw new Error("once more");
      });
      await enqueue(world, "b", "x");
      await eventually("it is done", async () => (await world.storedMessages()) === 0);
      expect([b.received.all.length, (await ledger()).toSorted()]).toEqual([2, ["kept", "x"]]);
    },
  );

  it.each([
    "SET LOCAL ROLE tenant",
    "SET ROLE tenant",
    "SET LOCAL SESSION AUTHORIZATION tenant",
    "SELECT set_config('role', 'tenant', true)",
    "SET LOCAL search_path TO nowhere",
    "SET LOCAL row_security = off",
    "SET LOCAL session_replication_role = replica",
    "SET CONSTRAINTS ALL DEFERRED",
    "SET LOCAL default_transaction_read_only = on",
  ])("is done with %s, which the next one does not have", async (statement) => {
    const tenant = `tenant_${process.pid}`;
    await world.query(
      `CREATE ROLE ${tenant}; GRANT INSERT ON ledger TO ${tenant}; GRANT USAGE ON ledger_id_seq TO ${tenant}`,
    );
    const states: unknown[] = [];
    const stateSql =
      "SELECT current_user, session_user, current_setting('search_path') AS path, current_setting('row_security') AS rows";
    await world.working("b-1", transactional, async (message) => {
      states.push((await message.client.query(stateSql)).rows[0]);
      await message.client.query(statement.replace("tenant", tenant));
      await message.client.query("INSERT INTO public.ledger (what) VALUES ($1)", [message.text()]);
    });
    for (const text of ["one", "two"]) await enqueue(world, "b", text, { key: "k" });
    await eventually("both are done", async () => (await world.storedMessages()) === 0);
    expect(await ledger()).toEqual(["one", "two"]);
    expect(states[1]).toEqual(states[0]);
    expect(await world.deadLetters(0)).toEqual([]);
    await world.query(`DROP OWNED BY ${tenant}; DROP ROLE ${tenant}`);
  });

  it("has failed, by its own COMMIT, for an at-most-once message, too", async () => {
    const a = await world.started("a-1");
    const b = await world.started("b-1", transactional, async ({ client, delivery }) => {
      if (delivery === "at-most-once") await client.query("COMMIT; BEGIN");
    });
    await a.send("b", "first");
    await a.send("b", "x", { delivery: "at-most-once" });
    expect(await b.saw("dead_letter")).toMatchObject({ stored: false, code: "handler_failed" });
  });

  it.each([
    ["SET TRANSACTION READ ONLY", 2],
    ["SET LOCAL statement_timeout = 1", 1],
  ])("does not hold up its channel for ever, by %s", async (statement, attempts) => {
    let attempted = 0;
    const a = await world.started("a-1");
    const b = await world.started("b-1", transactional, async ({ client, payload }) => {
      if (payload[0] !== 0x78) return;
      attempted += 1;
      await client.query(statement);
    });
    await Promise.all([a.send("b", "x"), a.send("b", "y")]);
    await b.received.find(({ text }) => text === "y");
    expect(attempted).toBe(attempts);
    const letters = attempts === 1 ? 0 : 1;
    expect(await world.deadLetters(letters)).toHaveLength(letters);
  });

  it.each(["40001", "40P01"])(
    "is repeated within its attempt after conflicts with others, up to ten: %s",
    async (code) => {
      const fail = `DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '${code}'; END $$`;
      const options = { ...transactional, defaults: { retry: { attempts: 1 } } };
      const b = await world.working("b-1", options, async (message) => {
        await write(message);
        if (message.text() === "always" || b.received.all.length <= 3) await message.client.query(fail);
      });
      await enqueue(world, "b", "at first");
      await eventually("it is done", async () => (await world.storedMessages()) === 0);
      expect(b.received.all.map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1]);
      expect(await ledger()).toEqual(["at first"]);
      await enqueue(world, "b", "always");
      expect((await world.deadLetters(1))[0]).toMatchObject({
        attempts: 1,
        error_message: expect.stringContaining("conflict"),
      });
      expect(b.received.all.length).toBe(4 + 11);
    },
  );

  it("may take back a part with SAVEPOINT", async () => {
    const a = await world.started("a-1");
    await world.started("b-1", transactional, async (message) => {
      await message.client.query("SAVEPOINT here");
      await message.client.query("INSERT INTO ledger (what) VALUES ('taken back')");
      await message.client.query("ROLLBACK TO SAVEPOINT here");
      await write(message);
    });
    await a.send("b", "x");
    await world.handled();
    expect(await ledger()).toEqual(["x"]);
  });

  it("a handler that outlives a stop does not end the next run", async () => {
    const a = await world.started("a-1");
    const held = gate();
    const ended = gate();
    let calls = 0;
    const handler = async () => {
      calls += 1;
      if (calls > 1) return;
      await held.opened;
      ended.open();
    };
    const b = world.peer("b-1", transactional);
    await b.startWith(handler);
    const sent = a.send("b", "x");
    await eventually("the handler runs", () => calls === 1);
    await b.stop({ timeoutMs: 0 });
    await b.startWith(handler);
    held.open();
    await ended.opened;
    await sent;
    await world.handled();
    expect((await b.send("a", "still here")).peer).toBe("a-1");
    expect(b.statuses.all.filter(({ kind }) => kind === "name_lost")).toEqual([]);
  });

  it("a statement that a handler begins after it has thrown writes nothing", async () => {
    const a = await world.started("a-1");
    const second = gate();
    let late: unknown;
    await world.started("b-1", transactional, async ({ client, attempt }) => {
      if (attempt === 2) second.open();
      const writes = async () => {
        await second.opened;
        await client.query("INSERT INTO ledger (what) VALUES ($1)", [`attempt ${attempt}`]);
      };
      const written = writes().catch((error) => {
        late = error;
      });
      if (attempt === 1) throw new Error("no");
      await written;
    });
    await a.send("b", "x");
    await world.handled();
    await eventually("the first attempt's statement was refused", () => late !== undefined);
    expect(await world.query("SELECT what FROM ledger")).toEqual([{ what: "attempt 2" }]);
  });

  it("an at-most-once message whose connection breaks is handled once", async () => {
    const a = await world.started("a-1");
    let calls = 0;
    const b = await world.started("b-1", transactional, async ({ client, delivery }) => {
      if (delivery !== "at-most-once") return;
      calls += 1;
      await client.query("SELECT pg_terminate_backend(pg_backend_pid())");
    });
    await a.send("b", "first");
    await a.send("b", "x", { delivery: "at-most-once" });
    expect(await b.saw("dead_letter")).toMatchObject({ stored: false });
    await a.send("b", "last");
    await b.received.find(({ text }) => text === "last");
    expect(calls).toBe(1);
  });

  it("a handler that was given up in a long statement does not keep the channel for as long as that takes", async () => {
    const a = await world.started("a-1");
    let starts = 0;
    await world.started("b-1", { ...transactional, defaults: { retry, timeoutMs: 100 } }, async ({ client }) => {
      starts += 1;
      if (starts === 1) await client.query("SELECT pg_sleep(3600)");
    });
    await a.send("b", "x");
    await world.handled();
    expect(starts).toBeGreaterThan(1);
  });
});
