import type { Socket } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { openStore } from "../../../src/jobs-and-peers/peer-store/store.js";
import type { DeadLetter, Lease, Position } from "../../../src/jobs-and-peers/store/index.js";
import { beginSql, inShortTransaction } from "../../../src/jobs-and-peers/store/transaction.js";
import { TestWorker } from "../../queue/support/test-worker.js";
import { startProxy } from "../../store/support/proxy.js";
import { takeOver, textMessages, type World, world } from "../../store/support/world.js";
import { eventually } from "../../support/eventually.js";

/** Calls back for each write to the socket. A write that finds the socket busy is sent with the next one. */
function onWrite(client: pg.ClientBase, called: (bytes: Buffer) => void): void {
  const { stream } = (client as unknown as { readonly connection: { readonly stream: Socket } }).connection;
  const [write, writeAll] = [stream._write.bind(stream), stream._writev!.bind(stream)];
  stream._write = (chunk: Buffer, ...rest) => {
    called(chunk);
    write(chunk, ...rest);
  };
  stream._writev = (chunks, ...rest) => {
    called(Buffer.concat(chunks.map(({ chunk }) => chunk as Buffer)));
    writeAll(chunks, ...rest);
  };
}

describe("a handler inside a transaction", () => {
  let w: World;
  let sender: Lease;
  let listener: Lease;
  let channel: number;
  let channels = 0;

  beforeAll(async () => {
    w = await world();
    await w.operator.query("CREATE TABLE effects (effect text)");
    sender = await w.take("sender");
    listener = await w.take("listener");
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(async () => {
    channels += 1;
    channel = await w.channelOf({ name: "sender", sourceTopic: `source ${channels}` }, "listener");
    await w.operator.query("TRUNCATE effects");
  });

  const message = (number: number) => ({ channelId: channel, epoch: sender.epoch, number });
  const repeated = (number: number) => ({ ...message(number), mayBeDone: true });

  function letter(position: Position): DeadLetter {
    return {
      ...position,
      topic: "topic",
      payload: Buffer.from("payload"),
      headers: [],
      errorCode: "handler_crashed",
      errorMessage: "given up",
      attempts: 5,
    };
  }

  async function effects(): Promise<string[]> {
    return (await w.operator.query("SELECT effect FROM effects")).rows.map(({ effect }) => effect);
  }

  async function letters(): Promise<number> {
    return (
      (await w.operator.query("SELECT FROM hawser_data.dead_letters WHERE channel_id = $1", [channel])).rowCount ?? 0
    );
  }

  async function marks(): Promise<string[]> {
    const text = "SELECT number FROM hawser_peer_data.marks WHERE channel_id = $1 ORDER BY number";
    return (await w.operator.query(text, [channel])).rows.map(({ number }) => String(number));
  }

  it("commits its effects together with the mark", async () => {
    await w.store.storeMessages(sender, channel, 1, textMessages("a", "b"));
    const outcome = await w.store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query("INSERT INTO effects VALUES ('one')");
      expect(await effects()).toEqual([]);
    });
    expect(outcome).toBe("committed");
    expect(await effects()).toEqual(["one"]);
    expect(await marks()).toEqual(["1"]);
    expect(await w.store.backlogOf(channel, { epoch: sender.epoch, number: 1 })).toBe(1);
  });

  it("rolls back without a failure when the handler asks for it, with a mark or without", async () => {
    const withdrawn = async (client: pg.ClientBase) => {
      await client.query("INSERT INTO effects VALUES ('withdrawn')");
      return "rollBack";
    };
    expect(await w.store.handleInTransaction(listener, [message(1)], withdrawn)).toBe("rolledBack");
    expect(await w.store.handleInTransaction(listener, [], withdrawn)).toBe("rolledBack");
    expect([await effects(), await marks()]).toEqual([[], []]);
  });

  it("has the search_path and limits of a plain login, and leaves no settings to later users of the session", async () => {
    const { rows } = await w.operator.query("SELECT current_user AS role, current_database() AS database");
    const role = rows[0].role;
    const settings = ["search_path", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"];
    const read = async (client: Pick<pg.ClientBase, "query">): Promise<string[]> => {
      const text = settings.map((name) => `current_setting('${name}') AS ${name}`).join(", ");
      return Object.values((await client.query(`SELECT ${text}`)).rows[0]);
    };
    await w.operator.query(
      `ALTER ROLE ${role} IN DATABASE ${rows[0].database} SET search_path = elsewhere, public, pg_catalog`,
    );
    try {
      const plain = await read(await w.connect());
      expect(plain[0]).toBe("elsewhere, public, pg_catalog");
      // Not the one that is open: its connections have what the login had when they were made.
      const databaseUrl = `${w.url}?application_name=later`;
      for (const pooled of [false, true]) {
        await using store = await openStore({
          databaseUrl,
          ...(pooled ? { sessionUrl: w.url } : {}),
          poolSize: 2,
        });
        for (const number of [1, 2]) {
          const handled = store.handleInTransaction(
            listener,
            [message(pooled ? number + 2 : number)],
            async (client) => {
              expect(await read(client)).toEqual(plain);
              await client.query("SET search_path = public; SET lock_timeout = 1; SET statement_timeout = 1234");
            },
          );
          expect(await handled).toBe("committed");
        }
      }
    } finally {
      await w.operator.query(`ALTER ROLE ${role} IN DATABASE ${rows[0].database} RESET search_path`);
    }
  });

  it("is not called for a message at or below the cursor", async () => {
    await w.store.commitCursors(listener, [message(5)]);
    const called = async () => expect.unreachable("it was handled already");
    expect(await w.store.handleInTransaction(listener, [repeated(5)], called)).toBe("duplicate");
    expect(await w.store.handleInTransaction(listener, [repeated(4)], called)).toBe("duplicate");
    expect(await w.store.handleInTransaction(listener, [{ ...repeated(1), epoch: 1 }], called)).toBe("duplicate");
  });

  it("is called once when the same message is handled twice at the same time", async () => {
    const insert = () =>
      w.store.handleInTransaction(listener, [message(1)], async (client) => {
        await client.query("INSERT INTO effects VALUES ('once')");
      });
    expect((await Promise.all([insert(), insert(), insert()])).sort()).toEqual(["committed", "duplicate", "duplicate"]);
    expect(await effects()).toEqual(["once"]);
  });

  // An attempt that the process gave up for lost may still be under way in the server.
  it("has no effects if its message has become a dead letter", async () => {
    const handled = await w.store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query("INSERT INTO effects VALUES ('once')");
      const commit = { ...message(1), deadLetters: [letter(message(1))] };
      expect(await w.store.commitCursors(listener, [commit])).toEqual({ committed: [channel], notOwned: [] });
    });
    expect(handled).toBe("duplicate");
    expect(await effects()).toEqual([]);
    expect(await letters()).toBe(1);
    expect(await marks()).toEqual([]);
  });

  it("blocks a dead letter from its mark on, which is then not written", async () => {
    const late = await w.connect();
    await late.query("BEGIN");
    await late.query("SET LOCAL hawser.handling = 'on'");
    await late.query("INSERT INTO effects VALUES ('once')");
    await late.query("SELECT hawser.mark_done('listener', $1, $2, ARRAY[$3::bigint], ARRAY[1])", [
      listener.epoch,
      channel,
      message(1).epoch,
    ]);
    const burying = w.store.commitCursors(listener, [{ ...message(1), deadLetters: [letter(message(1))] }]);
    await eventually("the dead letter waits", async () => {
      const { rowCount } = await w.operator.query(
        `SELECT FROM pg_stat_activity WHERE query LIKE '%commit_cursors%' AND wait_event_type = 'Lock'
            AND datname = current_database()`,
      );
      return rowCount === 1;
    });
    await late.query("COMMIT");
    expect(await burying).toEqual({ committed: [channel], notOwned: [] });
    expect(await effects()).toEqual(["once"]);
    expect(await letters()).toBe(0);
  });

  it("leaves a mark, which is read when the channel is opened and deleted when the cursor passes it", async () => {
    for (const number of [3, 2]) {
      await w.store.handleInTransaction(listener, [message(number)], async (client) => {
        await client.query("INSERT INTO effects VALUES ($1)", [String(number)]);
      });
    }
    expect(await marks()).toEqual(["2", "3"]);
    const { epoch } = message(1);
    const opened = await w.store.channel(channel);
    expect(opened!.done).toEqual([
      { epoch, number: 2 },
      { epoch, number: 3 },
    ]);
    await w.store.commitCursors(listener, [{ ...message(2), hasMarks: true }]);
    expect(await marks()).toEqual(["3"]);
    expect((await w.store.channel(channel))!.done).toEqual([{ epoch, number: 3 }]);
    const called = async () => expect.unreachable("it was handled already");
    expect(await w.store.handleInTransaction(listener, [repeated(3)], called)).toBe("duplicate");
    await w.store.commitCursors(listener, [{ ...message(5), hasMarks: true }]);
    expect(await marks()).toEqual([]);
  });

  it("does not block handlers of other messages of the channel", async () => {
    const inside = await w.store.handleInTransaction(listener, [message(1)], async () => {
      expect(await w.store.handleInTransaction(listener, [message(2)], async () => {})).toBe("committed");
      await w.store.commitCursors(listener, [{ ...message(0), done: [message(3)] }]);
    });
    expect(inside).toBe("committed");
    expect(await marks()).toEqual(["1", "2", "3"]);
  });

  it("leaves nothing behind when it throws, and its error is passed on", async () => {
    const error = new Error("no");
    const failing = w.store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query("INSERT INTO effects VALUES ('half')");
      throw error;
    });
    await expect(failing).rejects.toBe(error);
    expect(await effects()).toEqual([]);
    expect((await w.store.channel(channel))!.cursor).toEqual({ epoch: 0, number: 0 });
  });

  it("sends nothing when it throws before its first statement: a ROLLBACK would be a warning in the log of the server", async () => {
    const client = new pg.Client({ connectionString: w.url });
    await client.connect();
    onTestFinished(() => client.end());
    const notices: unknown[] = [];
    client.on("notice", ({ message }) => notices.push(message));
    const throwing = inShortTransaction(client, { begin: [{ text: beginSql }], after: [], isPrepared: true }, () =>
      Promise.reject(new Error("no")),
    );
    await expect(throwing).rejects.toMatchObject({ cause: { message: "no" } });
    await client.query("SELECT 1");
    expect(notices).toEqual([]);
  });

  it("leaves nothing behind when it swallows the error of a statement", async () => {
    const swallowing = w.store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query("INSERT INTO effects VALUES ('half')");
      await client.query("SELECT 1/0").catch(() => undefined);
    });
    await expect(swallowing).rejects.toMatchObject({ code: "store_failed" });
    expect(await effects()).toEqual([]);
  });

  it("is not called after the name or the channel was lost", async () => {
    const called = async () => expect.unreachable("it has no right to");
    const old = { name: "listener", epoch: listener.epoch - 1 };
    expect(await w.store.handleInTransaction(old, [repeated(1)], called)).toBe("fenced");
    await w.operator.query("UPDATE hawser_peer_data.channels SET owner = 'other' WHERE channel_id = $1", [channel]);
    expect(await w.store.handleInTransaction(listener, [repeated(1)], called)).toBe("notOwned");
  });

  it("does not count as failed if another transaction has completed its message", async () => {
    await w.operator.query("CREATE TABLE once (number integer PRIMARY KEY)");
    const insert = (transaction: pg.ClientBase) => transaction.query("INSERT INTO once VALUES (1)");
    const outcome = await w.store.handleInTransaction(listener, [message(1)], async (client) => {
      const twin = async (other: pg.ClientBase) => void (await insert(other));
      expect(await w.store.handleInTransaction(listener, [message(1)], twin)).toBe("committed");
      await insert(client);
    });
    expect(outcome).toBe("duplicate");
  });

  it("has no effects if the name or the channel was lost while it ran, and blocks nobody", async () => {
    const mine = await w.take("transient");
    const key = await w.channelOf({ name: "sender", sourceTopic: `lost ${channels}` }, "transient");
    const handing = w.store.handleInTransaction(mine, [{ ...message(1), channelId: key }], async (client) => {
      await client.query("INSERT INTO effects VALUES ('handed over')");
      await w.operator.query("UPDATE hawser_peer_data.channels SET owner = 'other' WHERE channel_id = $1", [key]);
    });
    expect(await handing).toBe("notOwned");
    await w.operator.query("UPDATE hawser_peer_data.channels SET owner = NULL WHERE channel_id = $1", [key]);
    const losing = w.store.handleInTransaction(mine, [{ ...message(1), channelId: key }], async (client) => {
      await client.query("INSERT INTO effects VALUES ('lost')");
      await takeOver(w.operator, "transient");
    });
    expect(await losing).toBe("fenced");
    expect(await effects()).toEqual([]);
    expect((await w.store.channel(key))!.cursor).toEqual({ epoch: 0, number: 0 });
  });

  it("leaves a connection to other statements, however many handlers wait for each other", async () => {
    let finish: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const keys = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        w.channelOf({ name: "sender", sourceTopic: `many ${channels} ${n}` }, "listener"),
      ),
    );
    let started = 0;
    const handling = keys.map((channelId) =>
      w.store.handleInTransaction(listener, [{ ...message(1), channelId }], async () => {
        started += 1;
        await gate;
      }),
    );
    await eventually("three have begun", () => started === 3);
    expect(await w.store.storeMessages(sender, channel, 1, textMessages("a"))).toBe("stored");
    expect(started).toBe(3);
    finish();
    expect(new Set(await Promise.all(handling))).toEqual(new Set(["committed"]));
    const small = await openStore({ databaseUrl: `${w.url}?application_name=small`, poolSize: 1 });
    const refused = small.handleInTransaction(listener, [message(2)], async () => {});
    await expect(refused).rejects.toMatchObject({ code: "invalid_argument" });
    await small.close();
  });

  it("leaves no settings, roles or locks to later users of the connection", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=settings`, poolSize: 2 });
    await store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query("SET search_path = nowhere; SET ROLE hawser_peer; CREATE TEMP TABLE peers (a integer)");
      await client.query("SELECT pg_advisory_lock(1)");
      const { rows } = await client.query("SHOW statement_timeout");
      expect(rows).toEqual([{ statement_timeout: "0" }]);
    });
    await store.handleInTransaction(listener, [message(2)], async (client) => {
      const { rows } = await client.query("SELECT current_user, current_setting('search_path') AS path");
      expect(rows).toEqual([{ current_user: new URL(w.url).username, path: '"$user", public' }]);
      const held = await client.query(
        "SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objid = 1 AND classid = 0",
      );
      expect(held.rowCount).toBe(0);
    });
    expect(await store.backlogOf(channel, { epoch: 0, number: 0 })).toBe(0);
  });

  it("takes two writes for one statement, and one without any", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=writes`, poolSize: 2 });
    let writes = 0;
    let isCounted = false;
    const handle = (number: number, statements: number) =>
      store.handleInTransaction(listener, [message(number)], async (client) => {
        if (!isCounted) onWrite(client, () => (writes += 1));
        isCounted = true;
        writes = 0;
        for (let nth = 0; nth < statements; nth += 1) await client.query("INSERT INTO effects VALUES ($1)", [nth]);
      });
    for (const [number, [statements, expected]] of [
      [1, 2],
      [0, 1],
      [2, 3],
    ].entries()) {
      expect(await handle(number + 1, statements!)).toBe("committed");
      expect(writes).toBe(expected);
    }
  });

  it("writes 400 results of a batch with each call, as calls have a limit", async () => {
    const count = 401;
    await w.operator.query("SELECT hawser.keep_results('t', 60000)");
    await w.operator.query("SELECT hawser.enqueue_batch('t', array_fill('x'::text, ARRAY[$1::int]))", [count]);
    const taken = await (await TestWorker.open(w.operator)).take({ most: count });
    const { server } = listener as unknown as { readonly server: string };
    const messages = taken.map(({ topic, recipient, role, rank, id }, nth) => {
      return { topic, recipient, role, rank, id, server, kept: { json: String(nth), durationMs: 1 } };
    });
    let written = "";
    const outcome = await w.store.handleInTransaction(listener, messages, async (client) =>
      onWrite(client, (bytes) => (written += bytes.toString())),
    );
    expect(outcome).toBe("committed");
    expect(written.match(/done_batch\(/g)).toHaveLength(2);
    const { rows } = await w.operator.query("SELECT count(DISTINCT result::text)::int FROM hawser_data.results");
    expect(rows).toEqual([{ count }]);
  });

  it.each([
    ["with values", "SELECT $1::int / 0", [1]],
    ["without values", "SELECT 1 / 0", undefined],
    ["that cannot be parsed", "SELEC $1", [1]],
  ])("fails with the error of its first statement, %s", async (_, text, values) => {
    const failing = w.store.handleInTransaction(listener, [message(1)], async (client) => {
      await client.query(text, values);
    });
    await expect(failing).rejects.toMatchObject({
      severity: "ERROR",
      position: text.startsWith("SELEC ") ? "1" : undefined,
    });
    expect(await marks()).toEqual([]);
  });

  it.each(["a stream of rows", "a callback"])("may begin with %s", async (way) => {
    await w.store.handleInTransaction(listener, [message(1)], async (client) => {
      const text = "INSERT INTO effects SELECT n FROM generate_series(1, 2) AS n RETURNING effect";
      if (way === "a callback")
        await new Promise<void>((resolve, reject) =>
          client.query(text, (error: Error | null) => (error ? reject(error) : resolve())),
        );
      else {
        const query = client.query(new pg.Query(text));
        const rows: unknown[] = [];
        query.on("row", (row) => rows.push(row));
        await new Promise<void>((resolve) => query.on("end", () => resolve()));
        expect(rows).toEqual([{ effect: "1" }, { effect: "2" }]);
      }
      expect(await effects()).toEqual([]);
    });
    expect(await effects()).toEqual(["1", "2"]);
  });

  it("may use a statement's name for one text only", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=names`, poolSize: 2 });
    const handle = (number: number, text: string) =>
      store.handleInTransaction(listener, [message(number)], async (client) => {
        await client.query({ name: "mine", text });
      });
    expect(await handle(1, "INSERT INTO effects VALUES ('one')")).toBe("committed");
    await expect(handle(2, "INSERT INTO effects VALUES ('two')")).rejects.toThrow("must be unique");
    expect(await effects()).toEqual(["one"]);
  });

  it("may remove prepared statements", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=deallocating`, poolSize: 2 });
    const handle = (number: number) =>
      store.handleInTransaction(listener, [message(number)], async (client) => {
        await client.query("INSERT INTO effects VALUES ('once')");
        await client.query("DEALLOCATE ALL");
      });
    for (const number of [1, 2, 3]) expect(await handle(number)).toBe("committed");
    expect((await effects()).length).toBe((await marks()).length);
  });

  it("cannot put a statement in the place of one of Hawser's", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=planting`, poolSize: 3 });
    const names = ["begin", "handling", "limits", "mark_done", "commit", "channels_to_give_back"];
    let planted = 0;
    const plant = (number: number) =>
      store.handleInTransaction(listener, [message(number)], async (client) => {
        for (const name of names)
          await client.query(`PREPARE "hawser.${name}" AS INSERT INTO effects VALUES ('planted')`);
        planted += 1;
        // Both connections for handlers have them.
        await eventually("both have planted", () => planted >= 2);
      });
    expect(await Promise.all([plant(1), plant(2)])).toEqual(["committed", "committed"]);
    expect(await marks()).toEqual(["1", "2"]);
    expect(await store.channelsToGiveBack("nobody")).toEqual([]);
    expect(await Promise.all([4, 5].map((number) => store.channelsToGiveBack(`nobody ${number}`)))).toEqual([[], []]);
    expect(await effects()).toEqual([]);
  });

  it.each([false, true])(
    "is reported unknown if the answer to its commit is lost, behind a pooler: %s",
    async (pooled) => {
      await using proxy = await startProxy(w.url);
      await using store = await openStore({ databaseUrl: proxy.url, ...(pooled ? { sessionUrl: w.url } : {}) });
      await store.backlogOf(channel, { epoch: 0, number: 0 });
      // The mark is answered before the commit is: keep back what comes after it.
      const handling = store.handleInTransaction(listener, [message(1)], async (client) => {
        await client.query("INSERT INTO effects VALUES ('once')");
        const blocker = await w.connect();
        await blocker.query("BEGIN");
        await blocker.query("DROP TABLE IF EXISTS deferred");
        await blocker.query("CREATE TABLE deferred (a integer UNIQUE DEFERRABLE INITIALLY DEFERRED)");
        await blocker.query("COMMIT");
        await blocker.query("BEGIN");
        await blocker.query("INSERT INTO deferred VALUES (1)");
        // Makes the COMMIT wait, for the other's row.
        await client.query("INSERT INTO deferred VALUES (1)");
        void eventually("the commit waits", async () => {
          const { rowCount } = await w.operator.query(
            "SELECT FROM pg_stat_activity WHERE query ~ '(^|; )COMMIT(; RESET|$)' AND wait_event_type = 'Lock' AND datname = current_database()",
          );
          return rowCount === 1;
        }).then(async () => {
          proxy.keepAnswersBack();
          await blocker.query("ROLLBACK");
          await eventually("it is committed", async () => (await effects()).length === 1);
          proxy.cut();
        });
      });
      await expect(handling).rejects.toMatchObject({ code: "store_failed", outcome: "unknown" });
      const again = async () => expect.unreachable("it was committed");
      expect(await store.handleInTransaction(listener, [repeated(1)], again)).toBe("duplicate");
      expect(await effects()).toEqual(["once"]);
    },
  );
});
