/**
 * Stacks on servers that somebody else has started, as HAWSER_DATABASE_URL and HAWSER_NATS_URL name them: those of this run.
 * `runs.slow.test.ts` has servers of a run's own.
 */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { keeperOfRun } from "../../src/development/testing/connect-keeper.js";
import {
  eventually,
  type TestStack,
  type TestStackOptions,
  testStack,
  twice,
} from "../../src/development/testing/index.js";
import { enqueue, type Message, type PeerOptions } from "../../src/jobs-and-peers/peer/index.js";
import { testNatsUrl, testServerUrl } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";

/** Beginning of the names of this file's databases. Another file can have a keeper on the same server. */
let prefix: string;

beforeAll(async () => {
  vi.stubEnv("HAWSER_DATABASE_URL", testServerUrl());
  vi.stubEnv("HAWSER_NATS_URL", testNatsUrl());
  // Not that of other files: this one ends its keeper.
  vi.stubEnv("HAWSER_TEST_RUN", String(process.pid));
  await using stack = await testStack();
  prefix = stack.id.replace(/_\d+$/, "");
});
afterAll(async () => {
  await (await keeperOfRun()).call("stop");
  expect(await kitsDatabases()).toEqual([]);
  vi.unstubAllEnvs();
});

/** Names of the databases that the kit has made for this file. */
async function kitsDatabases(): Promise<unknown[]> {
  const sql = `SELECT datname FROM pg_database WHERE starts_with(datname, '${prefix}')`;
  return (await rowsOf(testServerUrl(), sql)).map(({ datname }) => datname);
}

async function openStack(options?: TestStackOptions): Promise<TestStack> {
  const stack = await testStack(options);
  onTestFinished(() => stack.drop());
  return stack;
}

function sqlFile(content: string): string {
  const file = join(temporaryDirectory(), "1.sql");
  writeFileSync(file, content);
  return file;
}

describe("a stack", () => {
  it("has a database of its own with what Hawser installs, which goes with it", async () => {
    const [one, other] = await Promise.all([openStack(), openStack()]);
    await rowsOf(one.databaseUrl, "CREATE TABLE only_here ()");
    const [found] = await rowsOf(
      other.databaseUrl,
      "SELECT current_database() AS name, to_regclass('only_here') AS here, to_regproc('nats_publish_text') IS NOT NULL AS nats",
    );
    expect(found).toEqual({ name: other.id, here: null, nats: true });
    expect(await kitsDatabases()).toEqual(expect.arrayContaining([one.id, other.id]));
    await one.drop();
    expect(await kitsDatabases()).not.toContain(one.id);
    await one.drop();
  });

  it("has the migrations, which are run once for all who ask at the same time", async () => {
    let runs = 0;
    const files = sqlFile("CREATE TABLE orders ()");
    const run = async (databaseUrl: string): Promise<void> => {
      runs++;
      await rowsOf(databaseUrl, "CREATE TABLE orders ()");
    };
    const stacks = await Promise.all([1, 2, 3].map(() => openStack({ migrations: { files, run } })));
    expect(runs).toBe(1);
    for (const { databaseUrl } of stacks) await rowsOf(databaseUrl, "SELECT FROM orders");
    expect(new Set(stacks.map(({ id }) => id)).size).toBe(3);
  });

  it("is not made when its migrations fail, and the next one tries again", async () => {
    const files = sqlFile("");
    let isBroken = true;
    const run = (): void => {
      if (isBroken) throw new Error("no such column");
    };
    await expect(openStack({ migrations: { files, run } })).rejects.toThrow("no such column");
    isBroken = false;
    await openStack({ migrations: { files, run } });
    await expect(openStack({ migrations: sqlFile("SELECT FROM nowhere") })).rejects.toThrow(
      'relation "nowhere" does not exist',
    );
  });

  it("refuses options that are none", async () => {
    await expect(testStack({ migration: "x" } as TestStackOptions)).rejects.toThrow(/migration.*migrations/);
  });

  it("has SQL functions that reach NATS, with `hawser serve`", async () => {
    const { databaseUrl, natsUrl, id } = await openStack({ serve: true });
    const nats = await connect({ servers: natsUrl });
    onTestFinished(() => nats.close());
    const subscription = nats.subscribe(id, { max: 1 });
    await nats.flush();
    await rowsOf(databaseUrl, `SELECT nats_publish_text('${id}', 'hello')`);
    for await (const message of subscription) expect(message.string()).toBe("hello");
  });
});

describe("a peer of a stack", () => {
  it("handles a message that a statement of the stack enqueues, and that comes twice", async () => {
    const migrations = sqlFile("CREATE TABLE invoices (number int PRIMARY KEY)");
    await using stack = await testStack({ migrations });
    const attempts: number[] = [];
    const invoice = async (message: Message): Promise<void> => {
      attempts.push(message.attempt);
      await stack.query("INSERT INTO invoices VALUES ($1) ON CONFLICT DO NOTHING", [message.json().order]);
    };
    const billing = stack.peer({ name: "billing-1" });
    await billing.handle("billing", twice(invoice));
    await billing.start();
    await enqueue(stack, "billing", { order: 17 });
    await eventually(async () => assert.equal((await stack.query("SELECT FROM invoices")).rows.length, 1));
    await eventually(() => expect(attempts).toEqual([1, 2]));
    expect((await stack.query<{ number: number }>("SELECT number FROM invoices")).rows).toEqual([{ number: 17 }]);
  });

  it("stops with the stack, whose statements its handlers run until then", async () => {
    const stack = await openStack();
    let rows: unknown;
    let go = (): void => undefined;
    const told = new Promise<void>((resolve) => {
      go = resolve;
    });
    const peer = stack.peer({ name: "a-1" });
    const begun = new Promise<void>((resolve) => {
      void peer.handle("a", async () => {
        resolve();
        await told;
        rows = (await stack.query("SELECT 1 AS one")).rows;
      });
    });
    await peer.start();
    await enqueue(stack, "a", "x");
    await begun;
    const dropped = stack.drop();
    go();
    await Promise.all([dropped, stack.drop(), peer.closed]);
    expect(rows).toEqual([{ one: 1 }]);
    const gone = { code: "not_running", message: `the stack ${stack.id} has been dropped` };
    await expect(stack.query("SELECT 1")).rejects.toMatchObject(gone);
    expect(() => stack.peer({ name: "a-2" })).toThrow(gone.message);
  });

  it("stops with a stack whose connections are cut, before its deadline", async () => {
    const stack = await openStack();
    const peer = stack.peer({ name: "a-1", stopTimeoutMs: 3_600_000 });
    await peer.start();
    await stack.query("SELECT 1");
    await stack.postgres.cut({ silent: true });
    // Its connection is restored, or ended with the database.
    const statement = stack.query("SELECT 2").catch(() => undefined);
    await stack.drop();
    await Promise.all([peer.closed, statement]);
  });

  it("has no other database", async () => {
    const stack = await openStack();
    for (const name of ["databaseUrl", "pool", "sessionUrl"]) {
      const options = { name: "a-1", [name]: testServerUrl() } as PeerOptions;
      expect(() => stack.peer(options)).toThrow(`${name}: a peer of a stack uses the database of the stack`);
    }
  });
});

describe("connections", () => {
  it("to Postgres are cut and restored, and no other stack notices", async () => {
    const [one, other] = await Promise.all([openStack(), openStack()]);
    const clients = await Promise.all([one, other].map(({ databaseUrl }) => connected(databaseUrl)));
    const gone = new Promise((resolve) => clients[0]!.on("error", resolve));
    await one.postgres.cut();
    await gone;
    await expect(connected(one.databaseUrl)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    await clients[1]!.query("SELECT 1");
    await one.postgres.restore();
    await connected(one.databaseUrl);
  });

  it("to NATS are cut in silence, too", async () => {
    const { nats, natsUrl } = await openStack();
    const connection = await connect({ servers: natsUrl });
    onTestFinished(() => connection.close());
    await nats.cut({ silent: true });
    let hasAnswered = false;
    const answer = connection.flush().then(() => {
      hasAnswered = true;
    });
    await expect(eventually(() => hasAnswered, { withinMs: 50 })).rejects.toThrow("still returned false");
    await nats.restore();
    await answer;
  });

  it("of a stack that is gone are not to be cut", async () => {
    const stack = await openStack();
    await stack.drop();
    await expect(stack.postgres.cut()).rejects.toThrow(`the stack ${stack.id} has been dropped`);
  });

  async function connected(url: string): Promise<pg.Client> {
    const client = new pg.Client(url);
    client.on("error", () => undefined);
    await client.connect();
    onTestFinished(() => client.end().catch(() => undefined));
    return client;
  }
});

describe("a program", () => {
  const writes = 'console.log("on " + process.env.PLACE); setInterval(() => {}, 1000)';

  it("says what it writes, and stops", async () => {
    const { start } = bound(await openStack());
    const program = await start("node", ["-e", writes], { env: { PLACE: "board" } });
    await eventually(() => expect(program.output).toBe("on board\n"), { withinMs: 20_000 });
    expect(await program.stop()).toEqual({ status: null, signal: "SIGTERM" });
    expect(await program.kill()).toEqual(await program.ended);
  });

  it("finds the stack, not the servers of the shell, unless its `env` names others", async () => {
    for (const name of ["HAWSER_SESSION_URL", "PGDATABASE", "PGHOSTADDR", "PGPASSWORD", "PGAPPNAME", "NATS_URL"]) {
      vi.stubEnv(name, "elsewhere");
      onTestFinished(() => void vi.stubEnv(name, undefined));
    }
    const stack = await openStack();
    const print = "const { env } = process; console.log(JSON.stringify(env))";
    const env = { PGUSER: "reader", HAWSER_EXECUTOR_URL: "postgres://given@here/x" };
    const program = await stack.start("node", ["-e", print], { env });
    await program.ended;
    const { databaseUrl, natsUrl, id } = stack;
    const { hostname, port } = new URL(databaseUrl);
    const found = JSON.parse(program.output);
    expect(found).toMatchObject({
      HAWSER_DATABASE_URL: databaseUrl,
      HAWSER_NATS_URL: natsUrl,
      NATS_URL: natsUrl,
      ...env,
    });
    expect(found).toMatchObject({ PGHOST: hostname, PGPORT: port, PGDATABASE: id });
    for (const name of ["HAWSER_SESSION_URL", "PGHOSTADDR", "PGAPPNAME"]) expect(found).not.toHaveProperty(name);
    expect(found.PGPASSWORD).not.toBe("elsewhere");
  });

  it("ends with its stack, and what it has started, too", async () => {
    const stack = await openStack();
    const script = `const child = require("child_process").spawn("sleep", ["1000"]); console.log(child.pid); ${writes}`;
    const program = await stack.start("node", ["-e", script]);
    await eventually(() => expect(program.output).toMatch(/^\d+\n/), { withinMs: 20_000 });
    await stack.drop();
    expect((await program.ended).signal).toBe("SIGKILL");
    await eventually(() => expect(() => process.kill(Number.parseInt(program.output, 10), 0)).toThrow("ESRCH"));
  });

  it("is refused if there is none, or with faults that are none", async () => {
    const { start } = bound(await openStack());
    await expect(start("no-such-program", [])).rejects.toMatchObject({ code: "startup_failed" });
    await expect(start("node", [], { killAfterHandler: 0 })).rejects.toThrow(
      "killAfterHandler 0: must be an integer of at least 1",
    );
    await expect(start("node", [], { twise: true } as object)).rejects.toThrow(/twise.*twice/);
  });

  function bound(stack: TestStack): Pick<TestStack, "start"> {
    return { start: (...args) => stack.start(...args) };
  }
});
