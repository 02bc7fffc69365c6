/**
 * `hawser jobs import`: moves what waits in databases that pg-boss and graphile-worker have made.
 */
import pg from "pg";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { baselinePackage, requireBaseline } from "../../bench/baselines.js";
import { gate } from "../peer/support/gate.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { hawser, startHawser } from "./support/hawser.js";

const world = sharedPeerWorld();
let pool: pg.Pool;

beforeEach(() => {
  pool = new pg.Pool({ connectionString: world.url });
  pool.on("error", () => undefined);
});
afterEach(() => pool.end());

const imports = (...args: string[]) => hawser(["jobs", "import", ...args], { databaseUrl: world.url });

/** Counts of each queue, in the words of the JSON. */
async function counted(...args: string[]): Promise<unknown[]> {
  const { status, stdout, stderr } = await imports(...args, "--json");
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return stdout
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as unknown);
}

const messageId = `(SELECT h ->> 1 FROM jsonb_array_elements(headers) AS h WHERE h ->> 0 = 'message-id') AS id`;

/** What waits here, by topic and in the order in which it is taken. */
const queued = () =>
  world.query(
    `SELECT topic, convert_from(payload, 'UTF8')::json AS data, key, ${messageId}
       FROM hawser_data.queue AS q WHERE later IS NULL ORDER BY topic, recipient DESC, q.id`,
  );

/** What is due later here. */
const later = () =>
  world.query(
    `SELECT topic, convert_from(payload, 'UTF8')::json AS data, due_at AS at, ${messageId} FROM hawser_data.queue WHERE later IS NOT NULL`,
  );

const uniqueKeys = () =>
  world.query("SELECT topic, unique_key FROM hawser_data.unique_keys ORDER BY topic, unique_key");

const inAnHour = () => new Date(Date.now() + 3_600_000);

describe("pg-boss", () => {
  interface Boss {
    on(event: "error", listener: (error: Error) => void): void;
    start(): Promise<unknown>;
    stop(options: { readonly graceful: boolean }): Promise<void>;
    createQueue(name: string, options?: object): Promise<void>;
    send(name: string, data: object | null, options?: object): Promise<string>;
    insert(name: string, jobs: readonly object[]): Promise<unknown>;
    flow(jobs: readonly object[]): Promise<unknown>;
    fetch(name: string, options?: object): Promise<{ readonly id: string; readonly data: { readonly n: number } }[]>;
    complete(name: string, ids: string | string[]): Promise<unknown>;
    fail(name: string, id: string): Promise<unknown>;
    cancel(name: string, id: string): Promise<unknown>;
  }
  let boss: Boss;

  beforeEach(async () => {
    const { PgBoss } = (await import(baselinePackage("pg-boss"))) as { PgBoss: new (options: object) => Boss };
    boss = new PgBoss({ connectionString: world.url, schedule: false, supervise: false });
    boss.on("error", () => undefined);
    await boss.start();
  });
  afterEach(async () => {
    await boss.stop({ graceful: false });
    await pool.query("DROP SCHEMA pgboss CASCADE");
  });

  const left = async () =>
    (await pool.query("SELECT data ->> 'n' AS n, state::text FROM pgboss.job ORDER BY created_on, n")).rows;

  it("is counted first, and moved with due times, priorities and keys; what runs, has failed or is of a flow stays", async () => {
    await boss.createQueue("mail");
    await boss.createQueue("ordered", { policy: "key_strict_fifo" });
    const ids: Record<string, string> = {};
    for (const n of ["runs", "failed", "done", "cancelled"]) {
      ids[n] = await boss.send("mail", { n }, { retryLimit: 0 });
      await boss.fetch("mail");
    }
    await boss.fail("mail", ids["failed"]!);
    await boss.complete("mail", ids["done"]!);
    await boss.cancel("mail", ids["cancelled"]!);
    const plain = await boss.send("mail", { n: 1 });
    const urgent = await boss.send("mail", { n: 2 }, { priority: 100_000 });
    const empty = await boss.send("mail", null);
    const at = inAnHour();
    const due = await boss.send("mail", { n: 3 }, { startAfter: at });
    await boss.flow([
      { ref: "parent", name: "mail", data: { n: "parent" } },
      { ref: "child", name: "mail", data: { n: "child" }, dependsOn: ["parent"] },
    ]);
    await boss.send("ordered", { n: 4 }, { singletonKey: "a" });
    await boss.fetch("ordered");
    await boss.send("ordered", { n: 5 }, { singletonKey: "a" });
    const first = await boss.send("ordered", { n: 6 }, { singletonKey: "b" });
    const second = await boss.send("ordered", { n: 7 }, { singletonKey: "b", priority: 5 });

    const mail = {
      queue: "mail",
      topic: "mails",
      waiting: 4,
      later: 1,
      running: 1,
      failed: 1,
      held: 2,
      schedules: 0,
      refused: 0,
      refusals: [],
    };
    const ordered = {
      queue: "ordered",
      topic: "ordered",
      waiting: 2,
      later: 0,
      running: 1,
      failed: 0,
      held: 1,
      schedules: 0,
      refused: 0,
      refusals: [],
    };
    expect(await counted("pg-boss", "--to", "mail=mails")).toEqual([mail, ordered]);
    expect(await imports("pg-boss")).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^QUEUE +TOPIC +WAITING.*\nmail +mail +4 +1 +1 +1 +2 +0\n/),
      stderr: "Nothing was changed; --move moves the jobs that wait.\n",
    });
    expect(await queued()).toEqual([]);
    expect(await left()).toHaveLength(14);

    expect(await counted("pg-boss", "--to", "mail=mails", "--move")).toEqual([mail, ordered]);
    expect(await queued()).toEqual([
      { topic: "mails", data: { n: 2 }, key: null, id: urgent },
      { topic: "mails", data: { n: 1 }, key: null, id: plain },
      { topic: "mails", data: null, key: null, id: empty },
      { topic: "ordered", data: { n: 6 }, key: "b", id: first },
      { topic: "ordered", data: { n: 7 }, key: "b", id: second },
    ]);
    expect(await later()).toEqual([{ topic: "mails", data: { n: 3 }, at, id: due }]);
    expect(await left()).toEqual([
      { n: "runs", state: "active" },
      { n: "failed", state: "failed" },
      { n: "done", state: "completed" },
      { n: "cancelled", state: "cancelled" },
      { n: "child", state: "created" },
      { n: "parent", state: "created" },
      { n: "4", state: "active" },
      { n: "5", state: "created" },
    ]);
    expect(await counted("pg-boss", "--move", "--queue", "ordered")).toEqual([
      { ...ordered, waiting: 0, topic: "ordered" },
    ]);
  });

  it("is moved with the keys of which one job waits", async () => {
    await boss.createQueue("reindex", { policy: "short" });
    await boss.createQueue("plain");
    await boss.send("reindex", { n: 1 }, { singletonKey: "a" });
    await boss.send("reindex", { n: 2 });
    await boss.send("plain", { n: 3 }, { singletonKey: "a" });
    await counted("pg-boss", "--move");
    expect(await queued()).toHaveLength(3);
    expect(await uniqueKeys()).toEqual([
      { topic: "reindex", unique_key: "a" },
      { topic: "reindex", unique_key: "reindex" },
    ]);
  });

  it("is moved while its workers run: a job is handled there or here", async () => {
    await boss.createQueue("mail");
    let added = 0;
    const add = async (count: number): Promise<void> => {
      const jobs = Array.from({ length: count }, () => ({ data: { n: added++ } }));
      await boss.insert("mail", jobs);
    };
    await add(500);
    const there: number[] = [];
    // The command takes as long as it likes to begin: jobs come until it has ended.
    let isMoved = false;
    const work = async (): Promise<void> => {
      for (;;) {
        if (!isMoved) await add(10);
        const fetched = await boss.fetch("mail", { batchSize: 10 });
        if (fetched.length === 0 && isMoved) return;
        const ids = fetched.map(({ id }) => id);
        if (ids.length > 0) await boss.complete("mail", ids);
        there.push(...fetched.map(({ data }) => data.n));
      }
    };
    const working = Promise.all([work(), work(), work()]);
    await eventually("they have begun", () => there.length > 50);
    const [moved] = (await counted("pg-boss", "--move")) as [{ waiting: number }];
    isMoved = true;
    await working;
    const here = (await queued()).map((row) => (row as { data: { n: number } }).data.n);
    expect(here.length).toBe(moved.waiting);
    expect(here.length).toBeGreaterThan(0);
    expect([...there, ...here].sort((a, b) => a - b)).toEqual(Array.from({ length: added }, (_, n) => n));
  });

  it("is moved as a whole or not at all: three imports are killed at once, three times", async () => {
    const jobs = 300;
    await boss.createQueue("mail");
    await boss.insert(
      "mail",
      Array.from({ length: jobs }, (_, n) => ({ data: { n } })),
    );
    await pool.query(
      "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN OLD; END'",
    );
    await pool.query("CREATE TRIGGER slow BEFORE DELETE ON pgboss.job FOR EACH ROW EXECUTE FUNCTION slow()");
    const moving = async () =>
      (await pool.query("SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH chosen%'")).rows
        .length;
    for (let time = 0; time < 3; time++) {
      const killed = [1, 2, 3].map(() =>
        startHawser(["jobs", "import", "pg-boss", "--move"], { databaseUrl: world.url, input: "" }),
      );
      await eventually("one of them moves", async () => (await moving()) > 0);
      for (const { child } of killed) child.kill("SIGKILL");
      await Promise.all(killed.map(({ ended }) => ended));
      await eventually("Postgres has given it up", async () => (await moving()) === 0);
      expect(await queued()).toEqual([]);
      expect(await left()).toHaveLength(jobs);
    }
    await pool.query("DROP TRIGGER slow ON pgboss.job");
    expect(await counted("pg-boss", "--move")).toMatchObject([{ waiting: jobs }]);
    const here = (await queued()).map((row) => (row as { data: { n: number } }).data.n);
    expect(here.sort((a, b) => a - b)).toEqual(Array.from({ length: jobs }, (_, n) => n));
    expect(await left()).toEqual([]);
  });
});

describe("graphile-worker", () => {
  interface Graphile {
    makeWorkerUtils(options: { readonly connectionString: string }): Promise<Utils>;
    run(options: object): Promise<{ stop(): Promise<void> }>;
    readonly Logger: new (factory: () => () => void) => object;
  }
  interface Utils {
    migrate(): Promise<void>;
    addJob(task: string, payload: unknown, spec?: object): Promise<{ readonly id: string }>;
    permanentlyFailJobs(ids: readonly string[]): Promise<unknown>;
    release(): Promise<void>;
  }
  const { Logger, makeWorkerUtils, run } = requireBaseline<Graphile>("graphile-worker");

  it("is counted first, and moved with due times, priorities and queues; what runs or has failed stays", async () => {
    const connectionString = world.url;
    const utils = await makeWorkerUtils({ connectionString });
    await utils.migrate();
    const held = gate();
    const started = gate();
    await utils.addJob("slow", { n: "runs" }, { queueName: "a" });
    const slow = async (): Promise<void> => {
      started.open();
      await held.opened;
    };
    const logger = new Logger(() => () => undefined);
    const taskList = { slow };
    const runner = await run({ connectionString, concurrency: 1, noHandleSignals: true, taskList, logger });
    await started.opened;
    await utils.permanentlyFailJobs([(await utils.addJob("user:mail", { n: "failed" })).id]);
    await utils.addJob("user:mail", { n: "held" }, { queueName: "a" });
    const plain = await utils.addJob("user:mail", { n: 1 }, { jobKey: "once" });
    const urgent = await utils.addJob("user:mail", { n: 2 }, { priority: -5 });
    const at = inAnHour();
    const due = await utils.addJob("user:mail", { n: 3 }, { runAt: at });
    const second = await utils.addJob("user:mail", [4], { queueName: "b" });
    const first = await utils.addJob("user:mail", [5], { queueName: "b", priority: -1 });

    expect(await imports("graphile-worker")).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/all jobs of "user:mail" cannot be moved: the topic "user:mail" .*--to/),
    });
    const topics = ["--to", "user:mail=mail"];
    const nothing = { schedules: 0, refused: 0, refusals: [] };
    const counts = [
      { queue: "slow", topic: "slow", waiting: 0, later: 0, running: 1, failed: 0, held: 0, ...nothing },
      { queue: "user:mail", topic: "mail", waiting: 5, later: 1, running: 0, failed: 1, held: 1, ...nothing },
    ];
    expect(await counted("graphile-worker", ...topics)).toEqual(counts);
    expect(await queued()).toEqual([]);
    expect(await counted("graphile-worker", ...topics, "--move")).toEqual(counts);
    const idOf = ({ id }: { readonly id: string }) => `graphile-worker-${id}`;
    expect(await queued()).toEqual([
      { topic: "mail", data: { n: 2 }, key: null, id: idOf(urgent) },
      { topic: "mail", data: [5], key: "b", id: idOf(first) },
      { topic: "mail", data: { n: 1 }, key: null, id: idOf(plain) },
      { topic: "mail", data: [4], key: "b", id: idOf(second) },
    ]);
    expect(await uniqueKeys()).toEqual([{ topic: "mail", unique_key: "once" }]);
    expect(await later()).toEqual([{ topic: "mail", data: { n: 3 }, at, id: idOf(due) }]);
    const { rows } = await pool.query("SELECT payload ->> 'n' AS n FROM graphile_worker._private_jobs ORDER BY id");
    expect(rows).toEqual([{ n: "runs" }, { n: "failed" }, { n: "held" }]);
    held.open();
    await runner.stop();
    await utils.release();
  });
});

it("says what is missing", async () => {
  for (const [args, status, why] of [
    [[], 64, "name one other job queue: pg-boss or graphile-worker"],
    [["bullmq"], 64, "It can pg-boss, graphile-worker"],
    [["pg-boss"], 64, "no table pgboss.job of pg-boss 10 or newer; name its schema with --schema"],
    [["graphile-worker", "--schema", "gw"], 64, "no table gw._private_jobs of graphile-worker 0.16 or newer"],
    [["pg-boss", "--to", "mail"], 64, "--to mail: must be QUEUE=TOPIC"],
  ] as const)
    expect(await imports(...args)).toMatchObject({ status, stderr: expect.stringContaining(why) });
});
