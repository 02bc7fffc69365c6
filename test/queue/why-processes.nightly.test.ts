/**
 * Why a message waits, beside 1,000,000 others: each cause is planted with processes of its own, named by `hawser.why` with a remedy,
 * and that remedy, carried out as it is written, has the message handled.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { type WhyResult, whyFunctions } from "../../generated/ts/rows/queue.js";
import { type EnqueueOptions, enqueue } from "../../src/jobs-and-peers/peer/index.js";
import { install } from "../../src/operating/installation/index.js";
import { hawser } from "../cli/support/hawser.js";
import { Crew } from "../faults/support/crew.js";
import { login } from "../installation/support/logins.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { type PrimaryAndStandby, startPrimaryAndStandby } from "../support/standby.js";
import type { Deed, ToldWorker } from "./programs/told-worker.js";

const waiting = 1_000_000;
/** Pages of 8 kB that one call may touch; the table and its indexes have more than 30,000. */
const mostPages = 300;

let servers: PrimaryAndStandby;
let client: pg.Client;
const table: (readonly [cause: string, condition: string, ms: string, pages: number, remedy: string])[] = [];

const connected = async (url: string): Promise<pg.Client> => {
  const session = new pg.Client(url);
  session.on("error", () => undefined);
  await session.connect();
  return session;
};

const medianOf = (times: readonly number[]): string =>
  times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!.toFixed(1);

/** Pages that a statement touches. */
async function pagesOf(session: pg.Client, statement: string): Promise<number> {
  const { rows } = await session.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${statement}`);
  const plan = rows[0]["QUERY PLAN"][0].Plan as Record<string, number>;
  return plan["Shared Hit Blocks"]! + plan["Shared Read Blocks"]!;
}

beforeAll(async () => {
  servers = await startPrimaryAndStandby();
  for (const server of [servers.standby, servers.primary]) {
    await onServer(server.url, "ALTER SYSTEM SET max_prepared_transactions = 10");
    await server.kill("SIGINT");
    await server.start();
  }
  const { url } = servers.primary;
  await install({ databaseUrl: url, nats: false });
  await onServer(
    url,
    "CREATE TABLE handled (what text, worker text)",
    `INSERT INTO hawser_data.queue (topic, rank, id, payload, key, enqueued_at)
     SELECT 'other-' || n % 400, n, n, convert_to(repeat('x', 100), 'UTF8'), CASE WHEN n % 3 = 0 THEN 'key-' || n % 1000 END, now()
       FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, ${waiting})) AS s`,
    "VACUUM ANALYZE hawser_data.queue",
  );
  client = await connected(url);
}, 600_000);
afterAll(async () => {
  const widths = [0, 1].map((column) => Math.max(...table.map((row) => String(row[column]).length)));
  for (const [cause, condition, ms, pages, remedy] of table)
    console.log(
      `${cause.padEnd(widths[0]!)}  ${condition.padEnd(widths[1]!)}  ${ms.padStart(5)} ms  ${String(pages).padStart(5)} pages  ${remedy}`,
    );
  await client?.end();
  await servers?.[Symbol.asyncDispose]();
});

/** What one cause is planted with. */
class Scene {
  readonly topic: string;
  readonly #cause: string;
  readonly #crew: Crew;
  #options = new Map<string, ToldWorker>();

  constructor(cause: string) {
    this.#cause = cause;
    this.topic = cause.replaceAll(/[^a-z]+/g, ".");
    this.#crew = new Crew((name) =>
      startProgram("test/queue/programs/told-worker.ts", [JSON.stringify(this.#options.get(name))], { env: this.#env }),
    );
  }

  get #env() {
    return { HAWSER_DATABASE_URL: servers.primary.url };
  }

  /** Enqueues a message with that text. */
  async put(text = "it", options: EnqueueOptions = {}, topic = this.topic): Promise<bigint> {
    return await enqueue(client, topic, `${this.topic} ${text}`, options);
  }

  /** Starts a worker, and resolves when it runs. */
  async start(name: string, does: Deed = "handle", options: Partial<ToldWorker> = {}): Promise<void> {
    this.#options.set(name, { name, does, topic: this.topic, ...options });
    await this.#crew.start(name);
  }

  tell(name: string, deed: Deed): void {
    this.#crew.tell(name, deed);
  }

  async end(name: string, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    await this.#crew.end(name, signal);
  }

  /** A transaction of a process of its own, which has run the statements. @returns what the last one returns */
  async open(name: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
    const program = startProgram("test/queue/programs/open-transaction.ts", statements, { env: this.#env });
    this.#transactions.set(name, program);
    onTestFinished(() => void program.child.kill("SIGKILL"));
    return JSON.parse(await program.firstLine) as Record<string, unknown>[];
  }
  readonly #transactions = new Map<string, ReturnType<typeof startProgram>>();

  async commit(name: string): Promise<void> {
    const { child, ended } = this.#transactions.get(name)!;
    child.stdin!.write("commit\n");
    await ended;
  }

  /**
   * Resolves once `hawser.why` names the cause, alone or beside others, and notes how long that takes.
   *
   * @returns the condition that is not met
   */
  async named(
    id: bigint,
    condition: string,
    explanation: RegExp,
    remedy: RegExp | null,
    { besides = [] as readonly string[], on = client } = {},
  ): Promise<WhyResult> {
    const functions = whyFunctions(on);
    let held: WhyResult[] = [];
    const found = (): WhyResult | undefined => held.find((one) => one.condition === condition);
    // Also once nothing else holds it, such as a worker that has just started.
    await eventually(`${condition} is named`, async () => {
      held = (await functions.why({ id, topic: null, key: null })).filter(({ isMet }) => !isMet);
      return (
        explanation.test(found()?.explanation ?? "") &&
        held.every((one) => one.condition === condition || besides.includes(one.condition))
      );
    }).catch((error: Error) => {
      throw new Error(
        [error.message, ...held.map((one) => `${one.condition}: ${one.explanation}; ${one.remedy}`)].join("\n"),
      );
    });
    const one = found()!;
    expect(one.remedy ?? "").toMatch(remedy ?? /^$/);
    const times: number[] = [];
    for (let round = 0; round < 7; round += 1) {
      const begunAt = performance.now();
      await functions.why({ id, topic: null, key: null });
      times.push(performance.now() - begunAt);
    }
    const pages = await pagesOf(on, `SELECT * FROM hawser.why(${id})`);
    table.push([this.#cause, condition, medianOf(times), pages, one.remedy ?? "–"]);
    expect(pages).toBeLessThan(mostPages);
    return one;
  }

  /** Resolves when a worker has the message, or has handled it. */
  async isTaken(id: bigint): Promise<void> {
    const sql = "SELECT FROM hawser_data.queue WHERE id = $1 AND worker IS NULL";
    await eventually("a worker has it", async () => (await client.query(sql, [String(id)])).rowCount === 0);
  }

  /** `hawser why` says since when a session holds it, which the function's owner may not see. */
  async saysSince(id: bigint): Promise<void> {
    const { stdout } = await hawser(["why", String(id)], { databaseUrl: servers.primary.url });
    expect(stdout).toMatch(/^- .*session \d+ .* \((?:for \d+ \w+|\d+ \w+ ago)\)\n/m);
  }

  /** Runs the command or the statement of a remedy. @returns what it prints */
  async follow({ remedy }: WhyResult, pattern: RegExp): Promise<string> {
    const [, found] = pattern.exec(remedy!)!;
    if (!found!.startsWith("hawser ")) {
      await onServer(servers.primary.url, found!);
      return "";
    }
    const { status, stdout, stderr } = await hawser(found!.split(" ").slice(1), { databaseUrl: servers.primary.url });
    expect(status, stderr).toBe(0);
    return stdout;
  }

  /** Resolves when a worker has handled the message of that text. */
  async handled(text = "it", by?: string): Promise<void> {
    await eventually(`"${text}" is handled`, async () => {
      const sql = "SELECT FROM handled WHERE what = $1 AND worker = coalesce($2, worker)";
      return (await client.query(sql, [`${this.topic} ${text}`, by])).rowCount! > 0;
    });
  }
}

const cause = (name: string, plant: (scene: Scene) => Promise<void>): void => {
  it(name, async () => await plant(new Scene(name)), 300_000);
};

cause("no worker serves the topic", async (scene) => {
  const id = await scene.put();
  await scene.named(
    id,
    "served",
    /^no worker serves the topic/,
    new RegExp(`^Start a worker that handles "${scene.topic}"$`),
  );
  await scene.start("w");
  await scene.handled();
});

cause("a name one letter off", async (scene) => {
  await scene.start("w");
  const id = await scene.put("it", {}, scene.topic.replace("letter", "lettre"));
  const { holder } = await scene.named(
    id,
    "served",
    /, and workers serve "a\.name\.one\.letter\.off": one of/,
    /^If so, correct the name where it is enqueued, cancel this one, and enqueue it for "a\.name\.one\.letter\.off"/,
  );
  expect((await client.query("SELECT hawser.cancel($1) AS became", [String(id)])).rows).toEqual([
    { became: "cancelled" },
  ]);
  await scene.put("it", {}, holder!);
  await scene.handled();
});

cause("all workers full", async (scene) => {
  await scene.start("w1", "hold", { concurrency: 1 });
  for (const n of [1, 2, 3, 4, 5]) await scene.put(`${n}`);
  const id = await scene.put();
  const { holder } = await scene.named(
    id,
    "room",
    /^all places of the 1 workers of the topic are taken; in "w1:\d+", a handler has been running for \d+ s$/,
    /^Start more workers, or raise their concurrency$/,
  );
  expect(holder).toMatch(/^w1:/);
  await scene.start("w2");
  await scene.handled("it", "w2");
});

cause("worker alive, its handlers hang", async (scene) => {
  await scene.start("w", "hang", { concurrency: 1 });
  const first = await scene.put("first");
  await scene.isTaken(first);
  for (const n of [1, 2, 3, 4, 5]) await scene.put(`${n}`);
  const id = await scene.put();
  await scene.named(
    id,
    "room",
    /a handler has been running for (6[1-9]|[7-9]\d|\d{3,}) s$/,
    /^The handler may hang: see the log of the worker, and give it a timeoutMs$/,
  );
  await scene.named(
    first,
    "free",
    /^the worker "w:\d+" has it: its handler runs, or is next\. It runs 1 of the topic, the oldest for \d+ s$/,
    /give it a timeoutMs$/,
    { besides: ["room"] },
  );
  await scene.end("w", "SIGKILL");
  await scene.start("with time limit", "hang", { concurrency: 1, timeoutMs: 1_000, takeoverMs: 3_000 });
  await scene.handled();
  await scene.handled("first");
});

cause("due later", async (scene) => {
  await scene.start("w");
  const soon = await scene.put("soon", { delayMs: 20_000 });
  const id = await scene.put("it", { delayMs: 3_600_000 });
  const why = await scene.named(
    id,
    "due",
    /^it is due in \d+ min$/,
    /^Wait, or hawser jobs cancel \d+, and enqueue another one$/,
  );
  await scene.named(soon, "due", /^it is due in \d+ s$/, /^Wait/);
  await scene.follow(why, /(hawser jobs cancel \d+)/);
  await scene.put();
  await scene.handled();
  await scene.handled("soon");
});

cause("waits for its key", async (scene) => {
  await scene.start("w1", "hold", { concurrency: 1 });
  const first = await scene.put("first", { key: "k" });
  await scene.isTaken(first);
  for (const n of [1, 2, 3, 4, 5]) await scene.put(`${n}`, { key: "k" });
  const id = await scene.put("it", { key: "k" });
  const why = await scene.named(
    id,
    "first_of_key",
    new RegExp(`^the message ${first} has the key "k", too, and comes first; the worker "w1:\\d+" has it$`),
    new RegExp(`^hawser why ${first}$`),
    { besides: ["room"] },
  );
  expect(why).toMatchObject({ holder: String(first), since: expect.any(Date) });
  await eventually("its worker says what runs", async () =>
    /- The worker "w1:\d+" has it: .* It runs 1 of the topic, the oldest for/.test(await scene.follow(why, /(.*)/)),
  );
  scene.tell("w1", "handle");
  await scene.handled();
});

cause("paused topic", async (scene) => {
  await scene.start("w");
  await client.query("SELECT hawser.pause_topic($1)", [scene.topic]);
  const id = await scene.put();
  const why = await scene.named(
    id,
    "not_paused",
    /^the topic is paused$/,
    new RegExp(`^hawser topics resume ${scene.topic}$`),
  );
  expect(why).toMatchObject({ holder: "postgres", since: expect.any(Date) });
  await scene.follow(why, /(.*)/);
  await scene.handled();
});

for (const [of, limit, given, explanation, raised] of [
  [
    "of rate",
    "rate => '1/h'",
    {},
    /^the rate of the topic is used up, 1\/h with a burst of 1: the next one may start in \d+ ms$/,
    ["--rate 1/h", "--rate 100/s"],
  ],
  [
    "of running",
    "running => 1, rate => '1000/s'",
    {},
    /^1 of 1 messages of the topic run that may at a time$/,
    ["--running 1", "--running 9"],
  ],
  [
    "per key",
    "running_per_key => 1, key_header => 'tenant'",
    { headers: { tenant: "a" } },
    /^1 of 1 messages of the key "a" run that may at a time$/,
    ["--running-per-key 1", "--running-per-key 9"],
  ],
] as const)
  cause(`limit ${of}`, async (scene) => {
    await client.query(`SELECT hawser.limit_topic($1, ${limit})`, [scene.topic]);
    await scene.start("w", "hold");
    const first = await scene.put("first", given);
    await scene.isTaken(first);
    const id = await scene.put("it", given);
    const why = await scene.named(
      id,
      "within_limits",
      explanation,
      new RegExp(`hawser topics limit ${scene.topic} .*${raised[0]}`),
    );
    if (of === "of rate") scene.tell("w", "handle");
    await scene.follow({ ...why, remedy: why.remedy!.replace(raised[0], raised[1]) }, /(hawser topics limit .*)/);
    await scene.isTaken(id);
    scene.tell("w", "handle");
    await scene.handled();
  });

cause("held behind a flow's child", async (scene) => {
  await scene.start("w");
  const first = await scene.put("first", {}, `${scene.topic}.first`);
  const id = await scene.put("it", { after: [first] });
  const why = await scene.named(
    id,
    "not_held",
    new RegExp(`^it comes after the message ${first}, which has not ended$`),
    new RegExp(`^hawser why ${first}$`),
  );
  expect(why.holder).toBe(String(first));
  expect(await scene.follow(why, /(.*)/)).toContain(`Start a worker that handles "${scene.topic}.first"`);
  await scene.start("first", "handle", { topic: `${scene.topic}.first` });
  await scene.handled();
});

cause("held behind a dead letter", async (scene) => {
  await scene.start("w", "fail", { retry: { attempts: 1 } });
  const id = await client.query("BEGIN").then(async () => {
    const first = await scene.put("first");
    const after = await scene.put("it", { after: [first] });
    await client.query("COMMIT");
    return after;
  });
  const why = await scene.named(
    id,
    "not_held",
    /^it comes after the message \d+, which is a dead letter$/,
    /hawser dead retry \d+, or hawser jobs cancel --flow \d+$/,
  );
  scene.tell("w", "handle");
  await scene.follow(why, /(hawser dead retry \d+)/);
  await scene.handled();
});

cause("held behind a cancelled one", async (scene) => {
  await scene.start("w");
  const first = await scene.put("first", {}, `${scene.topic}.first`);
  const id = await scene.put("it", { after: [first] });
  await client.query("SELECT hawser.cancel($1)", [String(first)]);
  const why = await scene.named(
    id,
    "not_held",
    /^it comes after the message \d+, which was cancelled or discarded$/,
    /^hawser jobs cancel --flow \d+, and enqueue it again$/,
  );
  await scene.follow(why, /(hawser jobs cancel --flow \d+)/);
  await scene.put();
  await scene.handled();
});

cause("put off by a retry", async (scene) => {
  await scene.start("w", "fail", { retry: { attempts: 1000, delayMs: 5_000, maxDelayMs: 5_000 } });
  const id = await scene.put();
  const why = await scene.named(
    id,
    "due",
    /^it has failed \d+ times, last with handler_failed: Error: no paper\. It is tried again in \d s$/,
    /^Mend the handler: it is tried again by itself$/,
  );
  expect(why.since).toEqual(expect.any(Date));
  scene.tell("w", "handle");
  await scene.handled();
});

cause("a dead letter", async (scene) => {
  await scene.start("w", "fail", { retry: { attempts: 1 } });
  const id = await scene.put();
  const why = await scene.named(
    id,
    "waits",
    /^it is a dead letter since its attempt 1: handler_failed: Error: no paper$/,
    /^Mend the handler, then hawser dead retry \d+$/,
  );
  expect(why.since).toEqual(expect.any(Date));
  scene.tell("w", "handle");
  await scene.follow(why, /(hawser dead retry \d+)/);
  await scene.handled();
});

cause("cancelled", async (scene) => {
  const id = await scene.put("it", { keepMs: 600_000 });
  await client.query("SELECT hawser.cancel($1)", [String(id)]);
  await scene.named(id, "waits", /^it was cancelled$/, /^Enqueue another one$/);
  await scene.put();
  await scene.start("w");
  await scene.handled();
});

cause("expired", async (scene) => {
  const id = await scene.put("it", { ttlMs: 1 });
  await scene.start("w");
  const why = await scene.named(
    id,
    "waits",
    /^it is a dead letter since its attempt \d: expired: /,
    /hawser dead retry \d+/,
  );
  await scene.follow(why, /(hawser dead retry \d+)/);
  await scene.handled();
});

cause("handled, and kept", async (scene) => {
  await scene.start("w");
  const id = await scene.put("it", { keepMs: 600_000 });
  const why = await scene.named(id, "waits", /^the worker "w:\d+" has handled it$/, null);
  expect(why.since).toEqual(expect.any(Date));
  await scene.handled();
});

cause("handled, and not kept", async (scene) => {
  await scene.start("w");
  const id = await scene.put();
  await scene.handled();
  const why = await scene.named(
    id,
    "waits",
    /^it was handled or cancelled, and nothing of it is kept/,
    /^hawser topics keep TOPIC TIME keeps what becomes of later ones$/,
  );
  await scene.follow(
    { ...why, remedy: why.remedy!.replace("TOPIC TIME", `${scene.topic} 1h`) },
    /(hawser topics keep \S+ \S+)/,
  );
  await scene.named(await scene.put("next"), "waits", /^the worker "w:\d+" has handled it$/, null);
});

cause("enqueued by an open transaction", async (scene) => {
  await scene.start("w");
  const [row] = await scene.open(
    "tx",
    `SELECT hawser.enqueue('${scene.topic}', '${scene.topic} it'::text) AS id, pg_backend_pid() AS pid`,
  );
  const id = BigInt(row!["id"] as string);
  const { holder } = await scene.named(
    id,
    "waits",
    /may not have ended: the session \d+ of the role "postgres" has written into the queue/,
    /pg_terminate_backend\(\d+\)/,
  );
  expect(holder).toBe(`session ${row!["pid"]}`);
  await scene.saysSince(id);
  await scene.commit("tx");
  await scene.handled();
});

cause("a row lock", async (scene) => {
  const id = await scene.put();
  const [row] = await scene.open(
    "tx",
    `SELECT pg_backend_pid() AS pid FROM hawser_data.queue WHERE id = ${id} FOR UPDATE`,
  );
  await scene.start("w");
  const why = await scene.named(
    id,
    "free",
    /^the session \d+ of the role "postgres" has locked it, in a transaction that has not ended$/,
    /^Wait for its end, or SELECT pg_terminate_backend\(\d+\)$/,
  );
  expect(why.holder).toBe(`session ${row!["pid"]}`);
  await scene.saysSince(id);
  await scene.follow(why, /(SELECT .*)/);
  await scene.handled();
});

cause("a row lock that sessions share", async (scene) => {
  const id = await scene.put();
  const sql = `SELECT pg_backend_pid() AS pid FROM hawser_data.queue WHERE id = ${id} FOR SHARE`;
  await scene.open("tx1", sql);
  await scene.open("tx2", sql);
  await scene.start("w");
  for (let n = 0; n < 2; n += 1) {
    const why = await scene.named(
      id,
      "free",
      /^the session \d+ of the role "postgres" has locked it/,
      /^Wait for its end, or SELECT pg_terminate_backend\(\d+\)$/,
    );
    await scene.follow(why, /(SELECT .*)/);
  }
  await scene.handled();
});

cause("enqueued by a prepared transaction", async (scene) => {
  await scene.start("w");
  const session = await connected(servers.primary.url);
  await session.query("BEGIN");
  const { rows } = await session.query("SELECT hawser.enqueue($1, $2::text) AS id", [scene.topic, `${scene.topic} it`]);
  await session.query("PREPARE TRANSACTION 'it''s open'");
  await session.end();
  const why = await scene.named(
    BigInt(rows[0].id),
    "waits",
    /the prepared transaction 'it''s open'/,
    /COMMIT PREPARED 'it''s open'/,
  );
  expect(why.since).toEqual(expect.any(Date));
  await scene.follow(why, /(COMMIT PREPARED '.*?open')/);
  await scene.handled();
});

cause("a row lock of a prepared transaction", async (scene) => {
  const id = await scene.put();
  const session = await connected(servers.primary.url);
  await session.query("BEGIN");
  await session.query("SELECT FROM hawser_data.queue WHERE id = $1 FOR UPDATE", [String(id)]);
  await session.query("PREPARE TRANSACTION 'row'");
  await session.end();
  await scene.start("w");
  const why = await scene.named(id, "free", /^the prepared transaction 'row' has locked it/, /ROLLBACK PREPARED 'row'/);
  await scene.follow(why, /(ROLLBACK PREPARED 'row')/);
  await scene.handled();
});

cause("limits that a transaction changes", async (scene) => {
  await client.query("SELECT hawser.limit_topic($1, running => 1)", [scene.topic]);
  await scene.start("w");
  const [row] = await scene.open(
    "tx",
    `SELECT pg_backend_pid() AS pid FROM hawser.limit_topic('${scene.topic}', running => 5)`,
  );
  const id = await scene.put();
  const why = await scene.named(
    id,
    "within_limits",
    /^the session \d+ of the role "postgres" has locked the settings of the topic/,
    /^Wait for its end, or SELECT pg_terminate_backend\(\d+\)$/,
  );
  expect(why.holder).toBe(`session ${row!["pid"]}`);
  await scene.follow(why, /(SELECT .*)/);
  await scene.handled();
});

cause("takeover still pending", async (scene) => {
  await scene.start("w1", "hold", { concurrency: 1, takeoverMs: 30_000 });
  const id = await scene.put();
  await scene.isTaken(id);
  await scene.end("w1", "SIGKILL");
  await scene.named(
    id,
    "free",
    /^the worker "w1:\d+" has it, and has been silent for 1\d s: another one takes it over in \d+ s$/,
    /^Wait for the takeover, which needs another worker of the topic$/,
    { besides: ["room", "served"] },
  );
  await scene.start("w2");
  await scene.handled("it", "w2");
});

cause("takeover from a peer", async (scene) => {
  const peer = { isPeer: true, takeoverMs: 30_000 };
  await scene.start("peer-1", "hold", peer);
  const id = await scene.put();
  await scene.isTaken(id);
  await scene.end("peer-1", "SIGKILL");
  await scene.named(
    id,
    "free",
    /^the worker "peer-1" has it, and has been silent for 1\d s/,
    /^Wait for the takeover, or start "peer-1" again$/,
    { besides: ["room", "served"] },
  );
  await scene.start("peer-1", "handle", peer);
  await scene.handled();
});

cause("a worker that was killed while it had nothing", async (scene) => {
  await scene.start("w1");
  await scene.put("first");
  await scene.handled("first");
  await scene.end("w1", "SIGKILL");
  const id = await scene.put();
  await scene.named(id, "served", /"w1:\d+"/, /^Start/);
  await scene.start("w2");
  await scene.handled();
});

cause("a group without members", async (scene) => {
  await scene.start("blue", "handle", { group: "blue" });
  await scene.start("red-1", "hold", { group: "red", concurrency: 1, takeoverMs: 3_000 });
  for (const n of [1, 2, 3, 4, 5]) await scene.put(`${n}`, { all: true });
  await scene.put("it", { all: true });
  const last = `SELECT id FROM hawser_data.queue WHERE topic = $1 AND recipient = '#red' AND convert_from(payload, 'UTF8') LIKE '%it' AND worker IS NULL`;
  let id = 0n;
  await eventually(
    "it waits for red",
    async () => (id = BigInt((await client.query(last, [scene.topic])).rows[0]?.id ?? 0)) !== 0n,
  );
  await scene.end("red-1", "SIGKILL");
  await scene.named(
    id,
    "served",
    /^no member of the group "red" that handles the topic runs; the last one was "red-1:\d+"$/,
    /^Start a worker with the group "red" that handles ".*"$/,
  );
  await scene.start("red-2", "handle", { group: "red" });
  await scene.handled("it", "red-2");
});

for (const by of ["back", "hands over"])
  cause(`a listener that is away, ${by}`, async (scene) => {
    const peer = { isPeer: true, durable: true };
    await scene.start("away-1", "handle", peer);
    await scene.start("away-2", "handle", peer);
    await scene.end("away-1", "SIGTERM");
    await scene.put("it", { all: true });
    await scene.handled("it", "away-2");
    const { rows } = await client.query("SELECT id FROM hawser_data.queue WHERE topic = $1", [scene.topic]);
    const why = await scene.named(
      BigInt(rows[0].id),
      "served",
      /^it is for the listener "away-1", which is away/,
      /^Start "away-1", or hand over what waits for it: hawser peers reassign away-1 OTHER$/,
    );
    if (by === "back") await scene.start("away-1", "handle", peer);
    else await scene.follow({ ...why, remedy: why.remedy!.replace("OTHER", "away-2") }, /(hawser peers .*)/);
    await eventually(
      "it is handled",
      async () => (await client.query("SELECT FROM handled WHERE what = $1", [`${scene.topic} it`])).rowCount === 2,
    );
  });

cause("role without rights", async (scene) => {
  await scene.start("w");
  await using mine = await login(servers.primary.url, "IN ROLE hawser_peer");
  const me = await connected(mine.url);
  const put = async (text: string, delay: string): Promise<bigint> =>
    BigInt(
      (
        await me.query(`SELECT hawser.enqueue($1, $2::text, deliver_at => now() + $3::interval) AS id`, [
          scene.topic,
          `${scene.topic} ${text}`,
          delay,
        ])
      ).rows[0].id,
    );
  const [soon, id] = [await put("soon", "2 s"), await put("it", "20 s")];
  await me.end();
  await client.query(`REVOKE hawser_peer FROM ${mine.role}`);
  await scene.named(
    id,
    "role_may_enqueue",
    /^the role ".*" may not enqueue for peers any more$/,
    /^GRANT hawser_peer TO \S+$/,
    { besides: ["due"] },
  );
  const why = await scene.named(
    soon,
    "waits",
    /^it is a dead letter since its attempt 0: not_permitted: .* may not enqueue for peers any more/,
    /^GRANT hawser_peer TO \S+, then hawser dead retry \d+$/,
  );
  await scene.follow(why, /(GRANT hawser_peer TO [^ ,]+)/);
  await scene.follow(why, /(hawser dead retry \d+)/);
  await scene.handled("soon");
  await scene.handled();
});

cause("server read-only", async (scene) => {
  const { url } = servers.primary;
  const id = await scene.put();
  const all = (ends: string, of: string) => `ALTER ${of} ${ends.replace("?", "default_transaction_read_only")}`;
  for (const of of ["SYSTEM", "DATABASE postgres"]) await client.query(all("SET ? = on", of));
  await client.query("SELECT pg_reload_conf()");
  const session = await connected(url);
  const why = await scene.named(
    id,
    "server_writes",
    /^transactions only read, by default_transaction_read_only$/,
    /ALTER DATABASE/,
    { besides: ["served"], on: session },
  );
  await session.end();
  await scene.follow(why, /(.*)/);
  await scene.start("w");
  await scene.handled();
  await onServer(url, ...["SYSTEM", "DATABASE postgres"].map((of) => all("RESET ?", of)), "SELECT pg_reload_conf()");
});

it("the first message of a topic is found, of 50,000 recipients and by its key, and of none", async () => {
  const session = await connected(servers.primary.url);
  const wide = await session.query<{ id: string }>(
    `INSERT INTO hawser_data.queue (topic, recipient, rank, id, payload)
     SELECT 'wide', '@listener-' || lpad(n::text, 5, '0'), n, n, 'x'
       FROM (SELECT nextval('hawser_data.outbox_id_seq') AS n FROM generate_series(1, 50000)) AS s RETURNING id`,
  );
  for (const [asked, found] of [
    ["topic => 'wide'", wide.rows[0]!.id],
    ["topic => 'other-3', key => 'key-3'", "3"],
    ["topic => 'other-4'", "4"],
    ["topic => 'other-4', key => 'none'", null],
  ] as const) {
    const statement = `SELECT * FROM hawser.why(${asked})`;
    const times: number[] = [];
    for (let round = 0; round < 7; round += 1) {
      const begunAt = performance.now();
      const { rows } = await session.query(statement);
      times.push(performance.now() - begunAt);
      expect(rows[0].job_id).toBe(found);
    }
    const pages = await pagesOf(session, statement);
    table.push([asked, "", medianOf(times), pages, ""]);
    expect(pages).toBeLessThan(mostPages + 10 * 100);
  }
  await session.end();
});

// The last one: the other server is the primary from then on.
cause("server is a standby", async (scene) => {
  const id = await scene.put();
  await servers.caughtUp();
  const session = await connected(servers.standby.url);
  await scene.named(
    id,
    "server_writes",
    /^the server is in recovery, or a standby$/,
    /^Workers need the primary server: wait for its recovery, or promote the standby$/,
    { besides: ["served"], on: session },
  );
  await session.end();
  await client.end();
  await servers.switchOver();
  client = await connected(servers.primary.url);
  await scene.start("w");
  await scene.handled();
});
