/**
 * A campaign over all features of the queue. Three workers, each in a process of its own behind a wire of its own, handle what two
 * loops enqueue: plain and transactional jobs, with keys, priorities, unique keys, delays, retries, results, limits, for all, in
 * batches, flows, of a schedule, and such as kill their process. Meanwhile one fault follows another. Who enqueues notes that in the
 * ledger, in the same transaction; workers note effects in theirs, and each call of a handler in a journal. In the end both say what
 * was lost, doubled, out of order, too many at a time, or in a pause, and nothing may be left in any table.
 *
 * HAWSER_FAULT_SEED repeats the choices of a run (not its timing), HAWSER_CAMPAIGN_FAULTS says how many faults there are.
 * HAWSER_CAMPAIGN_LATE_MS is the most that a delayed job may be late: by default that is only told, since it depends on the machine.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import {
  cancel,
  cancelFlow,
  type EnqueueOptions,
  enqueue,
  enqueueBatch,
  job,
  limitTopic,
  pauseTopic,
  resumeTopic,
  schedule,
  unschedule,
} from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { startProxy, type Proxy as Wire } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";
import { tableNamed } from "../support/tables.js";
import { campaignTables, counts, standstill } from "./support/campaign-audit.js";
import { faultSeed, loopTimeoutMs } from "./support/kills.js";
import {
  audit,
  createLedger,
  type Done,
  effectsSoFar,
  problems,
  problemsBesideRepeats,
  readDone,
  readSent,
} from "./support/ledger.js";
import { ownPostgres } from "./support/own-postgres.js";
import {
  type Grant,
  inPauses,
  type LimitSpan,
  lateness,
  notAlone,
  type Pause,
  readRun,
  type Span,
  tooFast,
  tooMany,
  type WorkerRun,
} from "./support/queue-campaign-audit.js";
import { type CampaignJob, now, plainTopics, workerAttempts } from "./support/queue-campaign-protocol.js";
import { restartPostgres, storm } from "./support/storm.js";

const faultCount = Number(process.env["HAWSER_CAMPAIGN_FAULTS"] ?? 150);
const mostLateMs = Number(process.env["HAWSER_CAMPAIGN_LATE_MS"] ?? Infinity);
/** Where journals stay, if they are to be looked at. */
const keptDirectory = process.env["HAWSER_CAMPAIGN_JOURNALS"];
const workers = ["worker-1", "worker-2", "worker-3"];
/** Effects between two faults. */
const step = 15;
/** Jobs that wait, from which on nobody enqueues more. */
const mostWaiting = 1_500;
/** Attempts of a job that kills its process. */
const poisonAttempts = 3;
/** Time without any progress after which what is left counts as lost. */
const progressLimitMs = 90_000;
/** Tables of what there is beside messages: who is there, and what was set. */
const catalogs = [
  "channels",
  "database_settings",
  "fences",
  "executor_login",
  "gateway_secret",
  "gateway_state",
  "id_counter",
  "listeners",
  "mesh_secret",
  "migrations",
  "nats_server",
  "enqueue_keys",
  "outbox_state",
  "outbox_turns",
  "owners",
  "peers",
  "routes",
  "served_topics",
  "topic_settings",
  "topics",
];

const tables = [
  ...campaignTables,
  "CREATE TABLE edges (before text, after text)",
  "CREATE TABLE relied (number bigint)",
  "CREATE INDEX ON relied (number)",
  "CREATE TABLE granted (topic text, id text, at float8)",
  // What a start of a topic with limits was given, and when, by the clock that the limits count by.
  `CREATE FUNCTION note_grant() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
   BEGIN
     INSERT INTO public.granted
     SELECT new.topic, convert_from(q.payload, 'UTF8')::jsonb ->> 'id', extract(epoch FROM new.started_at) * 1000000
       FROM hawser_data.queue AS q
      WHERE q.topic = new.topic AND q.recipient = new.recipient AND q.role = new.role AND q.rank = new.rank;
     RETURN NULL;
   END $$`,
  "CREATE TRIGGER note_grant AFTER INSERT OR UPDATE OF started_at ON hawser_data.topic_starts FOR EACH ROW EXECUTE FUNCTION note_grant()",
  "CREATE ROLE tenant",
  "GRANT hawser_peer TO tenant",
  "GRANT SELECT, INSERT ON edges, relied TO PUBLIC",
];

/** Effects whose transactions have not seen that of a job before theirs. */
const earlySql = `
  SELECT e.before, e.after FROM edges AS e
    JOIN done AS a ON a.id = e.after
    LEFT JOIN done AS b ON b.id = e.before
   WHERE b.xid IS NULL OR NOT pg_visible_in_snapshot(b.xid, a.snapshot)`;
const leftSql = `
  SELECT ((SELECT count(*) FROM hawser_data.queue)
        + (SELECT count(*) FROM hawser_data.cancellations) + (SELECT count(*) FROM hawser_data.flow_ends))::integer AS n`;

/** What is left of a topic, and who has it. */
const whatIsLeftSql = `
  SELECT q.topic, w.name, w.gone_at IS NOT NULL AS is_gone, q.is_suspect, q.attempts, q.due_at - now() AS due_in, count(*)::integer AS n, min(q.id) AS first
    FROM hawser_data.queue AS q LEFT JOIN hawser_data.workers AS w ON w.id = q.worker GROUP BY 1, 2, 3, 4, 5, 6 LIMIT 20`;

/** The workers: a process that nobody has ended is started again if it has killed itself, and is noted otherwise. */
class Workers {
  readonly unasked: string[] = [];
  readonly runs: WorkerRun[] = [];
  readonly #running = new Map<string, { readonly program: Program; readonly run: WorkerRun }>();
  readonly #directory = keptDirectory ?? mkdtempSync(join(tmpdir(), "hawser-queue-campaign-"));
  readonly #proxies: ReadonlyMap<string, Wire>;
  #isOver = false;

  constructor(proxies: ReadonlyMap<string, Wire>) {
    this.#proxies = proxies;
    onTestFinished(async () => {
      this.#isOver = true;
      for (const { program } of this.#running.values()) program.child.kill("SIGKILL");
      await Promise.all([...this.#running.values()].map(({ program }) => program.ended));
      if (keptDirectory === undefined) rmSync(this.#directory, { recursive: true, force: true });
    });
  }

  launch(name: string): Program {
    const journal = join(this.#directory, `${this.runs.length}-${name}`);
    const run: WorkerRun = { name, journal, endedAt: Infinity };
    this.runs.push(run);
    const url = new URL(this.#proxies.get(name)!.url);
    url.searchParams.set("application_name", name);
    const program = startProgram("test/faults/programs/queue-campaign-worker.ts", [name, journal], {
      env: { HAWSER_DATABASE_URL: url.href },
    });
    const entry = { program, run };
    this.#running.set(name, entry);
    void program.ended.then(({ status, signal, stderr }) => {
      if (this.#running.get(name) !== entry || this.#isOver) return;
      run.endedAt = now();
      if (signal !== "SIGKILL") this.unasked.push(`${name} has ended (${status ?? signal}): ${stderr}`);
      this.launch(name);
    });
    return program;
  }

  /** Ends a worker, and waits for that. One that is told to end in order has to. */
  async end(name: string, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const { program, run } = this.#running.get(name)!;
    if (signal === "SIGTERM") await program.firstLine.catch(() => undefined);
    // It has killed itself meanwhile, and another one has begun.
    if (this.#running.get(name)!.run !== run) return this.end(name, signal);
    this.#running.delete(name);
    if (signal === "SIGKILL") run.endedAt = now();
    program.child.kill(signal);
    const end = await program.ended;
    run.endedAt = Math.min(run.endedAt, now());
    if (signal === "SIGTERM" && end.status !== 0 && end.signal !== "SIGKILL") {
      this.unasked.push(`${name} has stopped with ${end.status ?? end.signal}: ${end.stderr}`);
    }
  }
}

/** What the loops have enqueued for certain, for those who cancel and ask. */
interface Known {
  readonly cancellable: (readonly [id: string, number: bigint])[];
  readonly flows: (readonly [ids: ReadonlyMap<bigint, string>, last: bigint])[];
  readonly kept: (readonly [id: string, number: bigint])[];
  readonly endless: (readonly [id: string, number: bigint])[];
}

/** A transaction that enqueues, as a role. */
class Writer {
  readonly committed: (() => void)[] = [];
  readonly #client: pg.Client;
  readonly #role: string;
  readonly #random: Random;
  readonly #prefix: string;
  readonly #known: Known;
  #nth = 0;

  constructor(client: pg.Client, role: string, random: Random, prefix: string, known: Known) {
    this.#client = client;
    this.#role = role;
    this.#random = random;
    this.#prefix = prefix;
    this.#known = known;
  }

  #id(): string {
    this.#nth += 1;
    return `${this.#prefix}-${this.#nth}`;
  }

  async #note(id: string, consumers: readonly string[], kind: string, rest: { lane?: string; due?: Date } = {}) {
    const values = [id, consumers, kind, rest.lane, rest.due];
    await this.#client.query("INSERT INTO sent (id, consumers, kind, lane, due) VALUES ($1, $2, $3, $4, $5)", values);
  }

  /** What a job may do beside being handled. */
  #behaviour(): Omit<CampaignJob, "id"> {
    const random = this.#random;
    return {
      workMs: random.chance(0.05) ? random.between(200, 1_500) : random.between(0, 60),
      ...(random.chance(0.15) && { fails: random.between(1, 2) }),
      ...(random.chance(0.1) && { notBefore: Date.now() + random.between(0, 800) }),
    };
  }

  readonly kinds: Readonly<Record<string, () => Promise<void>>> = {
    keyed: async () => {
      const random = this.#random;
      const topic = random.pick(["work", "plain"]);
      const key = `k${random.between(1, 5)}`;
      for (let nth = random.between(1, 3); nth > 0; nth -= 1) {
        const id = this.#id();
        const lane = `${this.#role} ${topic} ${key}`;
        const payload: CampaignJob = { id, ...this.#behaviour(), alone: lane };
        const number = await enqueue(this.#client, topic, payload, { key });
        await this.#note(id, [topic], "keyed", { lane });
        this.committed.push(() => void this.#known.cancellable.push([id, number]));
      }
    },
    single: async () => {
      const random = this.#random;
      const topic = random.pick(["work", "work", "plain"]);
      const id = this.#id();
      const isReject = random.chance(0.05);
      const payload: CampaignJob = {
        id,
        ...this.#behaviour(),
        ...(isReject && { rejects: true }),
        ...(topic === "work" && !isReject && random.chance(0.2) && { further: `${id}-further` }),
      };
      const isKept = random.chance(0.3);
      const options: EnqueueOptions = {
        ...(random.chance(0.5) && { priority: random.between(-2, 2) }),
        ...(isKept && { keepMs: 3_600_000 }),
      };
      const number = await enqueue(this.#client, topic, payload, options);
      await this.#note(id, [topic], isReject ? "reject" : "single");
      if (isKept && !isReject) this.committed.push(() => void this.#known.kept.push([id, number]));
      else if (!isReject) this.committed.push(() => void this.#known.cancellable.push([id, number]));
    },
    expiring: async () => {
      const id = this.#id();
      await enqueue(this.#client, "work", { id } satisfies CampaignJob, { ttlMs: this.#random.between(1, 400) });
      await this.#note(id, ["work"], "expiring");
    },
    delayed: async () => {
      const id = this.#id();
      const due = new Date(Date.now() + this.#random.between(0, 4_000));
      await enqueue(this.#client, "delayed", { id } satisfies CampaignJob, { deliverAt: due });
      await this.#note(id, ["delayed"], "delayed", { due });
    },
    unique: async () => {
      const random = this.#random;
      const key = `u${random.between(1, 4)}`;
      const isRunning = random.chance(0.4);
      const deliverAt = random.chance(0.3) ? new Date(Date.now() + random.between(0, 400)) : undefined;
      const payload: CampaignJob = {
        id: "",
        ...this.#behaviour(),
        ...(isRunning && { alone: `${this.#role} unique ${key}` }),
      };
      // A key is either one that counts while its job runs, or not.
      const uniqueKey = isRunning
        ? ({ key: `${key} running`, while: "running" } as const)
        : ({ key, mode: random.chance(0.4) ? "replace" : "keep" } as const);
      const number = await enqueue(this.#client, "unique", payload, { uniqueKey, deliverAt });
      await this.#client.query(
        `INSERT INTO sent (id, consumers, kind) SELECT '#' || $1, '{unique}', 'unique'
          WHERE NOT EXISTS (SELECT FROM relied WHERE number = $1::text::bigint)`,
        [String(number)],
      );
      await this.#client.query("INSERT INTO relied VALUES ($1)", [number]);
    },
    limited: async () => {
      const random = this.#random;
      const topic = random.pick(["limited", "perkey", "rated"]);
      for (let nth = random.between(1, 8); nth > 0; nth -= 1) {
        const id = this.#id();
        const tenant = `t${random.between(1, 3)}`;
        const payload: CampaignJob = {
          id,
          workMs: random.between(0, 80),
          ...(random.chance(0.1) && { fails: 1 }),
          ...(topic === "perkey" && { alone: `${this.#role} perkey ${tenant}` }),
        };
        const number = await enqueue(this.#client, topic, payload, { headers: { tenant } });
        await this.#note(id, [topic], topic);
        this.committed.push(() => void this.#known.cancellable.push([id, number]));
      }
    },
    reminder: async () => {
      const id = this.#id();
      const due = new Date(Date.now() + 8_000);
      const number = await enqueue(this.#client, "delayed", { id } satisfies CampaignJob, { deliverAt: due });
      await this.#note(id, ["delayed"], "reminder", { due });
      this.committed.push(() => void this.#known.cancellable.push([id, number]));
    },
    readings: async () => {
      const ids = Array.from({ length: this.#random.between(1, 8) }, () => this.#id());
      const payloads = ids.map((id): CampaignJob => ({ id, ...(this.#random.chance(0.05) && { fails: 1 }) }));
      await enqueueBatch(this.#client, "readings", payloads);
      for (const id of ids) await this.#note(id, ["readings"], "readings");
    },
    news: async () => {
      const id = this.#id();
      await enqueue(this.#client, "news", { id, workMs: 5 } satisfies CampaignJob, {
        all: true,
        ...(this.#random.chance(0.3) && { key: "news" }),
      });
      await this.#note(
        id,
        workers.map((name) => `news ${name}`),
        "news",
      );
    },
    flow: async () => {
      const random = this.#random;
      const ids = new Map<string, bigint>();
      for (let node = random.between(2, 6); node > 0; node -= 1) {
        const id = this.#id();
        const before = [...ids].filter(() => random.chance(0.5));
        const options: EnqueueOptions = {
          after: before.map(([, number]) => number),
          ...(random.chance(0.1) && { delayMs: random.between(1, 200) }),
        };
        const payload: CampaignJob = { id, ...this.#behaviour() };
        ids.set(id, await enqueue(this.#client, "work", payload, options));
        await this.#note(id, ["work"], "flow");
        for (const [first] of before) await this.#client.query("INSERT INTO edges VALUES ($1, $2)", [first, id]);
      }
      const last = [...ids.values()].at(-1)!;
      const byNumber = new Map([...ids].map(([id, number]) => [number, id]));
      this.committed.push(() => void this.#known.flows.push([byNumber, last]));
    },
    flowBehindDead: async () => {
      const [first, second] = [this.#id(), this.#id()];
      const before = await enqueue(this.#client, "work", { id: first, rejects: true } satisfies CampaignJob);
      await this.#note(first, ["work"], "reject");
      await enqueue(this.#client, "work", { id: second } satisfies CampaignJob, {
        after: [before],
        afterDead: "cancel",
      });
      await this.#note(second, [], "behind dead");
    },
  };

  async some(count: number): Promise<void> {
    for (let nth = 0; nth < count; nth += 1) await this.kinds[this.#random.pick(Object.keys(this.kinds))]!();
  }

  async poison(): Promise<string> {
    const topic = this.#random.pick(["work", "plain"]);
    const id = this.#id();
    await enqueue(this.#client, topic, { id, kills: true } satisfies CampaignJob, { attempts: poisonAttempts });
    await this.#note(id, [topic], "poison");
    return topic;
  }

  async endless(): Promise<void> {
    const id = this.#id();
    const number = await enqueue(this.#client, "endless", { id, endless: true } satisfies CampaignJob);
    await this.#note(id, ["endless"], "endless");
    this.committed.push(() => void this.#known.endless.push([id, number]));
  }
}

it(`the queue keeps its word in a campaign of ${faultCount} faults (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: 2 * loopTimeoutMs(faultCount),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres({ maxConnections: 200 });
  const { url } = postgres;
  await migrate({ databaseUrl: url });
  await createLedger(url);
  await onServer(url, ...tables);
  const proxies = new Map<string, Wire>();
  for (const name of workers) {
    const proxy = await startProxy(url);
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    proxies.set(name, proxy);
  }
  const crew = new Workers(proxies);

  const known: Known = { cancellable: [], flows: [], kept: [], endless: [] };
  /** Times in which Postgres, or a wire, is away: of all workers, or one. */
  const away: (Span & { readonly worker?: string })[] = [];
  const pauses: Pause[] = [];
  const paused = new Set<string>();
  const running: (LimitSpan & { to: number })[] = [];
  const rates: (Span & { perSecond: number; burst: number; to: number })[] = [];
  /** What goes on beside the faults that follow. */
  const background: Promise<unknown>[] = [];
  let isOver = false;
  let unheard = 0;

  const connected = async (): Promise<pg.Client> => {
    for (;;) {
      const client = new pg.Client({ connectionString: url });
      client.on("error", () => undefined);
      try {
        await client.connect();
        return client;
      } catch {
        await delay(50);
      }
    }
  };
  /** Does it on a connection of its own, once or more often, until Postgres has said that it is done. */
  const surely = async <T>(action: (client: pg.Client) => Promise<T>): Promise<T> => {
    for (;;) {
      const client = await connected();
      try {
        return await action(client);
      } catch (error) {
        if (!/terminat|connection|shut|starting|recovery|ECONN/i.test(String(error))) throw error;
        await delay(50);
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  };
  const inTransaction = async (
    role: string,
    prefix: string,
    work: (writer: Writer, client: pg.Client) => Promise<boolean>,
  ) => {
    const client = await connected();
    try {
      await client.query("BEGIN");
      if (role !== "postgres") await client.query(`SET LOCAL ROLE ${role}`);
      const writer = new Writer(client, role, random, prefix, known);
      const isCommit = await work(writer, client);
      await client.query(isCommit ? "COMMIT" : "ROLLBACK");
      if (isCommit) for (const commit of writer.committed) commit();
    } finally {
      await client.end().catch(() => undefined);
    }
  };

  const limitRunning = async (most: number): Promise<void> => {
    const limit = { most, from: now(), to: Infinity };
    await surely((client) => limitTopic(client, "limited", { running: most }));
    const last = running.at(-1);
    if (last !== undefined) last.to = now();
    running.push(limit);
  };
  const limitRate = async (perSecond: number, burst: number): Promise<void> => {
    const limit = { perSecond, burst, from: now(), to: Infinity };
    await surely((client) => limitTopic(client, "rated", { rate: `${perSecond}/s`, burst }));
    const last = rates.at(-1);
    if (last !== undefined) last.to = now();
    rates.push(limit);
  };
  await limitRunning(4);
  await limitRate(20, 5);
  await surely((client) => limitTopic(client, "perkey", { runningPerKey: 1, keyHeader: "tenant" }));
  await Promise.all(workers.map((name) => crew.launch(name).firstLine));
  await surely((client) => schedule(client, "each-second", { cron: "* * * * * *", to: "scheduled", missed: "all" }));

  const refusals: string[] = [];
  const load = async (nth: number, role: string): Promise<void> => {
    for (let round = 0; !isOver; round += 1) {
      try {
        await inTransaction(role, `${nth}-${round}`, async (writer) => {
          await writer.some(random.between(1, 5));
          return random.chance(0.85);
        });
        const [row] = await rowsOf(url, "SELECT count(*)::integer AS n FROM hawser_data.queue");
        while (!isOver && (row!["n"] as number) > mostWaiting) {
          await delay(200);
          row!["n"] = (await rowsOf(url, "SELECT count(*)::integer AS n FROM hawser_data.queue"))[0]!["n"];
        }
      } catch (error) {
        // Postgres was away, or two transactions wait for each other.
        const { code, message } = error as { code?: string; message: string };
        if (!/^(40P01|57P0\d|ECONN.*)$/.test(code ?? "") && !/onnection|starting up|shutting down/.test(message)) {
          refusals.push(`${code}: ${message}`);
        }
      }
      await delay(random.between(0, 160));
    }
  };
  const loads = [load(1, "postgres"), load(2, "tenant")];

  const withdraw = async (client: pg.Client, id: string, state: string): Promise<void> => {
    const outcome = state === "cancelled" ? "withdrawn" : "unknown";
    if (state !== "not_waiting") await client.query("UPDATE sent SET outcome = $2 WHERE id = $1", [id, outcome]);
  };
  const cancelJob = (id: string, number: bigint): Promise<void> =>
    surely(async (client) => {
      await client.query("BEGIN");
      await withdraw(client, id, await cancel(client, number));
      await client.query("COMMIT");
    });
  const asked = { cancelled: 0, cancelling: 0, not_waiting: 0 };
  const restart = async (signal: "SIGQUIT" | "SIGINT"): Promise<void> => {
    const from = now();
    if (signal === "SIGQUIT") await restartPostgres(postgres, signal, random.between(0, 1_500));
    else {
      await postgres.kill("SIGINT");
      await delay(random.between(0, 1_500));
      await postgres.start();
    }
    away.push({ from, to: now() });
  };

  const faults = {
    async kill() {
      const name = random.pick(workers);
      await crew.end(name, "SIGKILL");
      await delay(random.between(0, 2_000));
      crew.launch(name);
      return `${name} is killed`;
    },
    async killAll() {
      await Promise.all(workers.map((name) => crew.end(name, "SIGKILL")));
      for (const name of workers) crew.launch(name);
      return "all workers are killed";
    },
    async stop() {
      const name = random.pick(workers);
      await crew.end(name, "SIGTERM");
      await delay(random.between(0, 2_000));
      crew.launch(name);
      return `${name} stops, and starts`;
    },
    async sessions() {
      const name = random.pick(workers);
      const sql = `SELECT count(pg_terminate_backend(pid))::integer AS n FROM pg_stat_activity WHERE application_name = '${name}'`;
      const [row] = await rowsOf(url, sql);
      return `${row!["n"]} sessions of ${name} are ended`;
    },
    async immediate() {
      await restart("SIGQUIT");
      return "Postgres is stopped at once, and starts";
    },
    async fast() {
      await restart("SIGINT");
      return "Postgres is stopped, and starts";
    },
    async cut() {
      const name = random.pick(workers);
      const from = now();
      const proxy = proxies.get(name)!;
      if (random.chance(0.5)) proxy.freeze();
      await delay(random.between(0, 1_500));
      proxy.cut();
      away.push({ from, to: now(), worker: name });
      return `the wire of ${name} is cut`;
    },
    async pause() {
      const topic = random.pick(
        ["work", "plain", "unique", "limited", "rated", "perkey", "readings"].filter((each) => !paused.has(each)),
      );
      paused.add(topic);
      await surely((client) => pauseTopic(client, topic));
      const heard = async (): Promise<void> => {
        const sql = `SELECT FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker AND w.gone_at IS NULL WHERE q.topic = '${topic}' LIMIT 1`;
        const until = Date.now() + 20_000;
        let isHeard = false;
        while (!isHeard && Date.now() < until) {
          isHeard = (await surely((client) => client.query(sql))).rowCount === 0;
          if (!isHeard) await delay(20);
        }
        const from = now();
        await delay(random.between(500, 3_000));
        if (isHeard) pauses.push({ topic, from, to: now() });
        else unheard += 1;
        await surely((client) => resumeTopic(client, topic));
        paused.delete(topic);
      };
      background.push(heard());
      return `${topic} is paused`;
    },
    async limits() {
      if (random.chance(0.5)) await limitRunning(random.between(1, 6));
      else await limitRate(random.pick([10, 20, 30]), random.between(1, 10));
      return "limits are changed";
    },
    async cancel() {
      await inTransaction("postgres", `e-${now()}`, async (writer) => {
        await writer.endless();
        return true;
      }).catch(() => undefined);
      // No more of them at a time than leaves handlers to the others.
      for (const [id, number] of known.endless.splice(0, Math.max(0, known.endless.length - 2)))
        await cancelJob(id, number);
      for (const [id, number] of known.cancellable.slice(-40).filter(() => random.chance(0.4))) {
        await surely(async (client) => {
          await client.query("BEGIN");
          const state = await cancel(client, number);
          await withdraw(client, id, state);
          await client.query("COMMIT");
          asked[state] += 1;
        });
      }
      const flow = known.flows.at(-random.between(1, 3));
      if (flow === undefined) return "jobs are cancelled";
      await surely(async (client) => {
        await client.query("BEGIN");
        for (const { id, outcome } of await cancelFlow(client, flow[1])) {
          const name = flow[0].get(id);
          if (name !== undefined) await withdraw(client, name, outcome);
        }
        await client.query("COMMIT");
      });
      return "jobs and a flow are cancelled";
    },
    async lock() {
      const hold = inTransaction("tenant", `l-${now()}`, async (writer, client) => {
        await writer.kinds["keyed"]!();
        await writer.kinds["unique"]!();
        await writer.kinds["flow"]!();
        if (random.chance(0.5))
          await client.query("SELECT hawser.limit_topic('perkey', running_per_key => 1, key_header => 'tenant')");
        await delay(random.between(500, 4_000));
        return random.chance(0.5);
      }).catch(() => undefined);
      background.push(hold);
      return "a transaction of another role stays open";
    },
    async poison() {
      let topic = "";
      await inTransaction("postgres", `p-${now()}`, async (writer) => {
        topic = await writer.poison();
        return true;
      });
      return `a message of ${topic} kills its process`;
    },
  };

  const progress = async (): Promise<void> => {
    await delay(random.between(0, 1_000));
    // What a fault has hit need not be there again.
    if (random.chance(0.5)) return;
    const from = await effectsSoFar(url);
    let looks = 0;
    await eventually(`${step} more effects happen`, async () => {
      if (crew.unasked.length > 0) throw new Error(crew.unasked.join("\n"));
      looks += 1;
      if (looks % 1_000 === 0) console.log(await standstill(url));
      return (await effectsSoFar(url)) >= from + step;
    });
  };
  // How late this process itself is, with a timer and a statement, whatever the queue does: what the machine adds to delays.
  const own: number[] = [];
  const probe = (async () => {
    while (!isOver) {
      const from = now();
      await delay(100);
      await rowsOf(url, "SELECT 1").then(
        () => own.push((now() - from) / 1_000 - 100),
        () => undefined,
      );
    }
  })();
  const made = await storm({ random, count: faultCount, faults, progress });
  isOver = true;
  const stormEndedAt = now();
  await Promise.all([...loads, probe]);
  await Promise.all(background);
  await surely((client) => unschedule(client, "each-second"));
  for (const [id, number] of known.endless) await cancelJob(id, number);
  await drained(url, crew);
  console.log(`drained ${Math.round((now() - stormEndedAt) / 1_000_000)} s after the last fault`);

  // What became of those whose results are kept.
  const wrongResults: string[] = [];
  await surely(async (client) => {
    for (const [id, number] of known.kept) {
      const { state, result } = await job(client, number);
      if (state !== "done" || result !== id)
        wrongResults.push(`${id} is ${state}, with the result ${JSON.stringify(result)}`);
    }
  });

  const letters = await rowsOf(
    url,
    `SELECT d.id::text, d.topic, d.error_code AS code, convert_from(d.payload, 'UTF8')::jsonb ->> 'id' AS job,
            (SELECT s.kind FROM sent AS s WHERE s.id = convert_from(d.payload, 'UTF8')::jsonb ->> 'id') AS kind
       FROM hawser_data.dead_letters AS d`,
  );
  await onServer(
    url,
    "SELECT hawser.discard_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters ORDER BY id LIMIT 1000))",
    "SELECT hawser.discard_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters ORDER BY id LIMIT 1000))",
    // The day is over on which they expire.
    `UPDATE hawser_data.results SET expires_at = now() - interval '1 day',
            segment = (extract(epoch FROM clock_timestamp())::bigint / 86400 + 11) % 12`,
    "SELECT hawser.expire_results()",
  );
  await Promise.all(workers.slice(1).map((name) => crew.end(name, "SIGTERM")));
  await eventually("the workers that were killed are forgotten", async () => {
    // The day is over for which they are kept.
    await onServer(url, "UPDATE hawser_data.workers SET gone_at = gone_at - interval '2 days'");
    return (await rowsOf(url, "SELECT FROM hawser_data.workers")).length === 1;
  }).catch(() => undefined);
  await Promise.all(workers.slice(0, 1).map((name) => crew.end(name, "SIGTERM")));
  const left: string[] = [];
  const names = await rowsOf(
    url,
    "SELECT relname::text AS name FROM pg_class WHERE relnamespace IN ('hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relkind IN ('r', 'p') AND NOT relispartition",
  );
  for (const { name } of names) {
    const [row] = await rowsOf(url, `SELECT count(*)::integer AS n FROM ${tableNamed(String(name))}`);
    if (!catalogs.includes(String(name)) && row!["n"] !== 0) left.push(`${name}: ${row!["n"]}`);
  }

  const histories = crew.runs.map(readRun);
  const calls = histories.flatMap((history) => history.calls);
  const cuts = new Map<string, number>();
  for (const { id, end } of calls) if (end === "cut") cuts.set(id, (cuts.get(id) ?? 0) + 1);
  /** Whether a dead letter is one that its job allows. */
  const isAllowed = ({ code, kind, job: id }: Record<string, unknown>): boolean => {
    if (code === "rejected") return kind === "reject";
    if (code === "expired") return kind === "expiring";
    if (code !== "handler_crashed") return false;
    // One that never ends is in work at each end of its process.
    const begun = kind === "endless" ? calls.filter((call) => call.id === id).length : 0;
    return kind === "poison" || Math.max(begun, cuts.get(String(id)) ?? 0) >= workerAttempts;
  };
  const dead = new Set(letters.map((letter) => letter["job"]));
  const sent = (await readSent(url)).map((each) =>
    dead.has(each.id) ? { ...each, outcome: "withdrawn" as const } : each,
  );
  const isPlain = ({ consumers }: (typeof sent)[number]): boolean =>
    plainTopics.some((topic) => consumers.includes(topic));
  const plainDone: Done[] = calls
    .filter(({ topic, end }) => plainTopics.some((each) => each === topic) && end === "done")
    .sort((one, other) => one.to - other.to)
    .map(({ topic, id }) => ({ consumer: topic, id }));
  const plain = audit(sent.filter(isPlain), plainDone);
  const done = await readDone(url);
  const ofSchedule = done.filter(({ consumer }) => consumer === "scheduled");
  const inTransactions = audit(
    sent.filter((each) => !isPlain(each)),
    done.filter(({ consumer }) => consumer !== "scheduled"),
  );
  const times = ofSchedule.map(({ id }) => Date.parse(id)).sort((one, other) => one - other);
  const gaps = times.flatMap((time, nth) =>
    nth > 0 && time - times[nth - 1]! !== 1_000
      ? [`${new Date(time).toISOString()} after ${time - times[nth - 1]!} ms`]
      : [],
  );

  const granted = (await rowsOf(url, "SELECT topic, id, at FROM granted")) as unknown as (Grant & { topic: string })[];
  const of = (topic: string): Grant[] => granted.filter((grant) => grant.topic === topic);
  const delayed = sent.filter(
    ({ due, outcome, consumers }) =>
      typeof due === "number" && outcome === "confirmed" && consumers.includes("delayed"),
  );
  const late = lateness(
    delayed.map(({ id, due }) => ({ id, due: due! * 1_000_000 })),
    histories,
    away,
  );

  console.log(await counts(url));
  console.log(
    `seed ${faultSeed}: ${JSON.stringify(made)}; ${crew.runs.length} processes, ${calls.length} calls, ${[...cuts.values()].length} jobs cut`,
  );
  console.log(
    `cancelled: ${JSON.stringify(asked)}; pauses: ${pauses.length} checked, ${unheard} not heard of in time; ${times.length} occurrences`,
  );
  console.log(
    `dead letters: ${JSON.stringify(tally(letters.map(({ code, kind }) => `${kind} ${code}`)))}; ${plain.twice.length} plain jobs repeated; ${known.kept.length} results`,
  );
  console.log(
    `delayed: ${late.length}; ms behind a free living worker: ${distribution(late.map(({ lateMs }) => lateMs))}; behind the time: ${distribution(late.map(({ afterDueMs }) => afterDueMs))}`,
  );
  console.log(`ms that a timer and a statement of the driver are late: ${distribution(own)}`);
  console.log(`the latest: ${JSON.stringify([...late].sort((one, other) => other.lateMs - one.lateMs).slice(0, 5))}`);
  console.log(`grants: ${of("limited").length} limited, ${of("perkey").length} perkey, ${of("rated").length} rated`);

  expect(crew.unasked).toEqual([]);
  expect.soft(refusals).toEqual([]);
  expect.soft(problems(inTransactions)).toEqual([]);
  expect.soft(problemsBesideRepeats(plain)).toEqual([]);
  expect.soft(letters.filter((letter) => !isAllowed(letter))).toEqual([]);
  expect.soft(await rowsOf(url, earlySql)).toEqual([]);
  expect.soft(new Set(times).size).toBe(times.length);
  expect.soft(gaps).toEqual([]);
  expect.soft(notAlone(calls)).toEqual([]);
  expect
    .soft(
      tooMany(
        calls.filter(({ topic }) => topic === "limited"),
        running,
        of("limited"),
      ),
    )
    .toEqual([]);
  expect.soft(tooFast(of("rated"), rates)).toEqual([]);
  expect.soft(inPauses(calls, pauses)).toEqual([]);
  expect.soft(wrongResults).toEqual([]);
  expect.soft(late.filter(({ lateMs }) => lateMs > mostLateMs)).toEqual([]);
  expect.soft(left).toEqual([]);
});

function tally(words: readonly string[]): Record<string, number> {
  const found: Record<string, number> = {};
  for (const word of words) found[word] = (found[word] ?? 0) + 1;
  return found;
}

function distribution(values: readonly number[]): string {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (share: number): string => `${Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN)}`;
  return `median ${at(0.5)}, 90 % ${at(0.9)}, 99 % ${at(0.99)}, longest ${at(1)}`;
}

/** Resolves when nothing is left, or nothing has changed for a long time: what is wrong then, the audit says. */
async function drained(url: string, crew: Workers): Promise<void> {
  let [least, changedAt, looks] = [Infinity, Date.now(), 0];
  await eventually(
    "everything is handled, or nothing happens any more",
    async () => {
      const n = (await rowsOf(url, leftSql))[0]!["n"] as number;
      if (n < least) [least, changedAt] = [n, Date.now()];
      looks += 1;
      if (looks % 200 === 0) console.log(`${n} are left: ${JSON.stringify(await rowsOf(url, whatIsLeftSql))}`);
      return n === 0 || crew.unasked.length > 0 || Date.now() - changedAt > progressLimitMs;
    },
    900_000,
  );
  if (least > 0) console.log(await standstill(url));
}
