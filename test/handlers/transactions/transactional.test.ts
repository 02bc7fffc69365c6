import type { Socket } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { openStore } from "../../../src/jobs-and-peers/peer-store/store.js";
import { beginSql, inShortTransaction } from "../../../src/jobs-and-peers/store/transaction.js";
import { type Taken, TestWorker } from "../../queue/support/test-worker.js";
import { startProxy } from "../../store/support/proxy.js";
import { textMessages, type World, world } from "../../store/support/world.js";
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
  let worker: TestWorker;
  let server: string;

  beforeAll(async () => {
    w = await world();
    await w.operator.query("CREATE TABLE effects (effect text)");
    ({ server } = (await w.take("listener")) as unknown as { readonly server: string });
    worker = await TestWorker.open(w.operator);
  });
  afterAll(() => w[Symbol.asyncDispose]());
  beforeEach(() => w.operator.query("TRUNCATE effects, hawser_data.queue, hawser_data.dead_letters"));

  /** Jobs that a worker has. */
  async function jobs(count: number): Promise<(Taken & { readonly server: string })[]> {
    await w.operator.query("SELECT hawser.enqueue_batch('t', array_fill('x'::text, ARRAY[$1::int]))", [count]);
    return (await worker.take({ most: count, looksBehind: true })).map((taken) => ({ ...taken, server }));
  }

  const job = async () => (await jobs(1))[0]!;

  async function effects(): Promise<string[]> {
    return (await w.operator.query("SELECT effect FROM effects")).rows.map(({ effect }) => effect);
  }

  async function count(table: "queue" | "dead_letters"): Promise<number> {
    return (await w.operator.query(`SELECT FROM hawser_data.${table}`)).rowCount ?? 0;
  }

  it("commits its effects together with the end of its job", async () => {
    const [one, two] = await jobs(2);
    const outcome = await w.store.handleInTransaction([one!], async (client) => {
      await client.query("INSERT INTO effects VALUES ('one')");
      expect([await effects(), await count("queue")]).toEqual([[], 2]);
    });
    expect(outcome).toBe("committed");
    expect([await effects(), await count("queue")]).toEqual([["one"], 1]);
    expect(await w.store.handleInTransaction([two!], async () => {})).toBe("committed");
    expect(await count("queue")).toBe(0);
  });

  it("rolls back without a failure when the handler asks for it, with a job or without", async () => {
    const withdrawn = async (client: pg.ClientBase) => {
      await client.query("INSERT INTO effects VALUES ('withdrawn')");
      return "rollBack";
    };
    expect(await w.store.handleInTransaction([await job()], withdrawn)).toBe("rolledBack");
    expect(await w.store.handleInTransaction([], withdrawn)).toBe("rolledBack");
    expect([await effects(), await count("queue")]).toEqual([[], 1]);
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
        for (let round = 0; round < 2; round++) {
          const handled = store.handleInTransaction([await job()], async (client) => {
            expect(await read(client)).toEqual(plain);
            await client.query("SET search_path = public; SET lock_timeout = 1; SET statement_timeout = 1234");
          });
          expect(await handled).toBe("committed");
        }
      }
    } finally {
      await w.operator.query(`ALTER ROLE ${role} IN DATABASE ${rows[0].database} RESET search_path`);
    }
  });

  it("has its effects once when the same job is handled several times, one after another or at the same time", async () => {
    const one = await job();
    const insert = () =>
      w.store.handleInTransaction([one], async (client) => {
        await client.query("INSERT INTO effects VALUES ('once')");
      });
    expect((await Promise.all([insert(), insert(), insert()])).sort()).toEqual(["committed", "duplicate", "duplicate"]);
    expect(await insert()).toBe("duplicate");
    expect(await effects()).toEqual(["once"]);
  });

  // An attempt that the process gave up for lost may still be under way in the server.
  it("has no effects if its job has become a dead letter", async () => {
    const one = await job();
    const handled = await w.store.handleInTransaction([one], async (client) => {
      await client.query("INSERT INTO effects VALUES ('once')");
      await worker.giveUp(one);
    });
    expect(handled).toBe("duplicate");
    expect([await effects(), await count("dead_letters")]).toEqual([[], 1]);
  });

  it("has no effects of a batch if one of its jobs has become a dead letter", async () => {
    const both = await jobs(2);
    const handled = await w.store.handleInTransaction(both, async (client) => {
      await client.query("INSERT INTO effects VALUES ('once')");
      await worker.giveUp(both[1]!);
    });
    expect(handled).toBe("duplicate");
    expect([await effects(), await count("queue"), await count("dead_letters")]).toEqual([[], 1, 1]);
  });

  it("blocks a dead letter from its end on, which is then not written", async () => {
    const one = await job();
    const late = await w.connect();
    await late.query("BEGIN");
    await late.query("SET LOCAL hawser.handling = 'on'");
    await late.query("INSERT INTO effects VALUES ('once')");
    const { topic, recipient, role, rank } = one;
    await late.query("SELECT hawser.done($1, $2, $3, $4, true)", [topic, recipient, role, String(rank)]);
    const burying = expect(worker.giveUp(one)).rejects.toMatchObject({ code: "NA009" });
    const watcher = await w.connect();
    await eventually("the dead letter waits", async () => {
      const { rowCount } = await watcher.query(
        `SELECT FROM pg_stat_activity WHERE query LIKE '%give_up%' AND wait_event_type = 'Lock'
            AND datname = current_database()`,
      );
      return rowCount === 1;
    });
    await late.query("COMMIT");
    await burying;
    expect([await effects(), await count("dead_letters")]).toEqual([["once"], 0]);
  });

  it("does not block handlers of other jobs", async () => {
    const [one, two] = await jobs(2);
    const inside = await w.store.handleInTransaction([one!], async () => {
      expect(await w.store.handleInTransaction([two!], async () => {})).toBe("committed");
    });
    expect([inside, await count("queue")]).toEqual(["committed", 0]);
  });

  it("leaves nothing behind when it throws, and its error is passed on", async () => {
    const error = new Error("no");
    const failing = w.store.handleInTransaction([await job()], async (client) => {
      await client.query("INSERT INTO effects VALUES ('half')");
      throw error;
    });
    await expect(failing).rejects.toBe(error);
    expect([await effects(), await count("queue")]).toEqual([[], 1]);
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
    const swallowing = w.store.handleInTransaction([await job()], async (client) => {
      await client.query("INSERT INTO effects VALUES ('half')");
      await client.query("SELECT 1/0").catch(() => undefined);
    });
    await expect(swallowing).rejects.toMatchObject({ code: "store_failed" });
    expect(await effects()).toEqual([]);
  });

  it("leaves a connection to other statements, however many handlers wait for each other", async () => {
    let finish: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const sender = await w.take("sender");
    const channel = await w.channelOf({ name: "sender", sourceTopic: "source" }, "listener");
    let started = 0;
    const handling = (await jobs(10)).map((each) =>
      w.store.handleInTransaction([each], async () => {
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
    const refused = small.handleInTransaction([], async () => {});
    await expect(refused).rejects.toMatchObject({ code: "invalid_argument" });
    await small.close();
  });

  it("leaves no settings, roles or locks to later users of the connection", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=settings`, poolSize: 2 });
    await store.handleInTransaction([await job()], async (client) => {
      await client.query("SET search_path = nowhere; SET ROLE hawser_peer; CREATE TEMP TABLE peers (a integer)");
      await client.query("SELECT pg_advisory_lock(1)");
      const { rows } = await client.query("SHOW statement_timeout");
      expect(rows).toEqual([{ statement_timeout: "0" }]);
    });
    await store.handleInTransaction([await job()], async (client) => {
      const { rows } = await client.query("SELECT current_user, current_setting('search_path') AS path");
      expect(rows).toEqual([{ current_user: new URL(w.url).username, path: '"$user", public' }]);
      const held = await client.query(
        "SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objid = 1 AND classid = 0",
      );
      expect(held.rowCount).toBe(0);
    });
    expect(await store.peerEpoch("nobody")).toBeUndefined();
  });

  it("takes two writes for one statement, and one without any", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=writes`, poolSize: 2 });
    let writes = 0;
    let isCounted = false;
    const handle = async (statements: number) =>
      store.handleInTransaction([await job()], async (client) => {
        if (!isCounted) onWrite(client, () => (writes += 1));
        isCounted = true;
        writes = 0;
        for (let nth = 0; nth < statements; nth += 1) await client.query("INSERT INTO effects VALUES ($1)", [nth]);
      });
    for (const [statements, expected] of [
      [1, 2],
      [0, 1],
      [2, 3],
    ] as const) {
      expect(await handle(statements)).toBe("committed");
      expect(writes).toBe(expected);
    }
  });

  it("writes 400 results of a batch with each call, as calls have a limit", async () => {
    const most = 401;
    await w.operator.query("SELECT hawser.keep_results('t', 60000)");
    const messages = (await jobs(most)).map((each, nth) => ({ ...each, kept: { json: String(nth), durationMs: 1 } }));
    let written = "";
    const outcome = await w.store.handleInTransaction(messages, async (client) =>
      onWrite(client, (bytes) => (written += bytes.toString())),
    );
    expect(outcome).toBe("committed");
    expect(written.match(/done_batch\(/g)).toHaveLength(2);
    const { rows } = await w.operator.query("SELECT count(DISTINCT result::text)::int FROM hawser_data.results");
    expect(rows).toEqual([{ count: most }]);
    await w.operator.query("SELECT hawser.keep_results('t', NULL)");
  });

  it.each([
    ["with values", "SELECT $1::int / 0", [1]],
    ["without values", "SELECT 1 / 0", undefined],
    ["that cannot be parsed", "SELEC $1", [1]],
  ])("fails with the error of its first statement, %s", async (_, text, values) => {
    const failing = w.store.handleInTransaction([await job()], async (client) => {
      await client.query(text, values);
    });
    await expect(failing).rejects.toMatchObject({
      severity: "ERROR",
      position: text.startsWith("SELEC ") ? "1" : undefined,
    });
    expect(await count("queue")).toBe(1);
  });

  it.each(["a stream of rows", "a callback"])("may begin with %s", async (way) => {
    await w.store.handleInTransaction([await job()], async (client) => {
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
    const handle = async (text: string) =>
      store.handleInTransaction([await job()], async (client) => {
        await client.query({ name: "mine", text });
      });
    expect(await handle("INSERT INTO effects VALUES ('one')")).toBe("committed");
    await expect(handle("INSERT INTO effects VALUES ('two')")).rejects.toThrow("must be unique");
    expect(await effects()).toEqual(["one"]);
  });

  it("may remove prepared statements", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=deallocating`, poolSize: 2 });
    const handle = async () =>
      store.handleInTransaction([await job()], async (client) => {
        await client.query("INSERT INTO effects VALUES ('once')");
        await client.query("DEALLOCATE ALL");
      });
    for (let round = 0; round < 3; round++) expect(await handle()).toBe("committed");
    expect([(await effects()).length, await count("queue")]).toEqual([3, 0]);
  });

  it("cannot put a statement in the place of one of Hawser's", async () => {
    await using store = await openStore({ databaseUrl: `${w.url}?application_name=planting`, poolSize: 3 });
    const names = ["begin", "handling", "limits", "done", "commit", "peer_epoch"];
    let planted = 0;
    const plant = async () =>
      store.handleInTransaction([await job()], async (client) => {
        for (const name of names)
          await client.query(`PREPARE "hawser.${name}" AS INSERT INTO effects VALUES ('planted')`);
        planted += 1;
        // Both connections for handlers have them.
        await eventually("both have planted", () => planted >= 2);
      });
    expect(await Promise.all([plant(), plant()])).toEqual(["committed", "committed"]);
    expect(await count("queue")).toBe(0);
    expect(await store.peerEpoch("nobody")).toBeUndefined();
    const epochs = await Promise.all([4, 5].map((number) => store.peerEpoch(`nobody ${number}`)));
    expect(epochs).toEqual([undefined, undefined]);
    expect(await effects()).toEqual([]);
  });

  it.each([false, true])(
    "is reported unknown if the answer to its commit is lost, behind a pooler: %s",
    async (pooled) => {
      await using proxy = await startProxy(w.url);
      await using store = await openStore({ databaseUrl: proxy.url, ...(pooled ? { sessionUrl: w.url } : {}) });
      await store.peerEpoch("nobody");
      const one = await job();
      // The end is answered before the commit is: keep back what comes after it.
      const handling = store.handleInTransaction([one], async (client) => {
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
      const again = async (client: pg.ClientBase) => void (await client.query("INSERT INTO effects VALUES ('twice')"));
      expect(await store.handleInTransaction([one], again)).toBe("duplicate");
      expect(await effects()).toEqual(["once"]);
    },
  );
});
