/**
 * Campaigns over all features at once. Two groups, two single listeners that take over from each other, a listener of direct messages
 * and two writers run, each in a process of its own. Messages are enqueued with and without keys, in batches, for all listeners, for
 * later, cancelled, asked and answered, sent directly and by schedules; handlers fail by what the message says, so that it is tried
 * again at once, or later. Meanwhile one fault follows another. The transaction that enqueues notes in the ledger what it has
 * enqueued; in the end each of these messages has had its effect once for each of its consumers, each key is in order, and what was
 * rolled back or cancelled has had none.
 *
 * One campaign is on a Postgres whose standby is synchronous, so that a failover loses nothing; the other one's lacks what was
 * committed last, and what the database has then fits together all the same.
 *
 * HAWSER_FAULT_SEED repeats the choices of a run (not its timing), HAWSER_CAMPAIGN_FAULTS says how many faults there are, and
 * HAWSER_CAMPAIGN_SCALE how many times as many messages and keys as by default.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { Random } from "../simulator/random.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";
import { type PrimaryAndStandby, startPrimaryAndStandby } from "../support/standby.js";
import { auditCampaign, campaignTables, counts, left, standstill, whereabouts } from "./support/campaign-audit.js";
import { type CampaignScope, nameLostStatus } from "./support/campaign-protocol.js";
import { Crew } from "./support/crew.js";
import { endSessionsSql, faultSeed, loopTimeoutMs } from "./support/kills.js";
import { createLedger, effectsSoFar, problems } from "./support/ledger.js";
import { type Fault, restartPostgres, storm } from "./support/storm.js";

const faultCount = Number(process.env["HAWSER_CAMPAIGN_FAULTS"] ?? 15);
/** The part of each peer. */
const parts: Readonly<Record<string, string>> = {
  "red-1": "red",
  "red-2": "red",
  "blue-1": "blue",
  "blue-2": "blue",
  "solo-1": "solo",
  "solo-2": "solo",
  "sink-1": "sink",
};
const peers = Object.keys(parts);
const writers = ["writer-1", "writer-2"];
const ofPart = (part: string): string[] => peers.filter((name) => parts[name] === part);
/** Effects between two faults. */
const step = 60 * Number(process.env["HAWSER_CAMPAIGN_SCALE"] ?? 1);
/** Longer than leases last and than sessions may be idle in a transaction. */
const standstillMs = 11_000;
/** How long a takeover is waited for. There is none if nothing is stored for the peer. */
const takeoverWaitMs = 12_000;
/** Time without any progress after which what is unfinished counts as lost. */
const progressLimitMs = 60_000;

/** A campaign that goes on. */
interface Campaign {
  readonly servers: PrimaryAndStandby;
  readonly crew: Crew;
  /** New connections go to the server that is the primary now. */
  follow(): void;
  /** What is on the way to Postgres and back is held up, then lost. */
  silence(ms: number): Promise<void>;
  /** Resolves when so many more effects have happened. */
  progress(): Promise<void>;
}

/** Starts the servers, the peers and the writers. */
async function start(scope: CampaignScope): Promise<Campaign> {
  const servers = await startPrimaryAndStandby();
  onTestFinished(() => servers[Symbol.asyncDispose]());
  const { url } = servers.primary;
  await migrate({ databaseUrl: url });
  await createLedger(url);
  await onServer(url, ...campaignTables);
  if (scope === "all") await synchronous(servers);
  const proxy = await startProxy(url);
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  let started = 0;
  const program = (name: string) => {
    const env = { HAWSER_DATABASE_URL: withName(proxy.url, name) };
    if (name in parts) return startProgram("test/faults/programs/campaign-peer.ts", [name, parts[name]!], { env });
    return startProgram("test/faults/programs/campaign-writer.ts", [name, `${faultSeed + ++started}`, scope], { env });
  };
  // A failover that loses commits can lose that by which a process got its name.
  const crew = new Crew(program, { mayLoseNames: scope === "enqueue" });
  await crew.start(...peers);
  if (scope === "all") {
    await onServer(
      url,
      `SELECT hawser.schedule('all', '* * * * * *', 'jobs', '{}', missed => 'all')`,
      `SELECT hawser.schedule('one', '*/2 * * * * *', 'work', '{}', missed => 'one')`,
    );
  }
  await crew.start(...writers);
  return {
    servers,
    crew,
    follow: () => proxy.leadTo(servers.primary.url),
    async silence(ms) {
      proxy.freeze();
      await delay(ms);
      // Both ends hear of it: a session whose end is not heard of holds the locks of its transaction until keepalives tell.
      proxy.cut();
    },
    async progress() {
      const from = await effectsSoFar(servers.primary.url);
      await crew.awaits(
        `${step} more effects happen`,
        async () => (await effectsSoFar(servers.primary.url)) >= from + step,
      );
    },
  };
}

/** The kinds of faults of all campaigns. */
function faultsOf({ servers, crew, progress }: Campaign, random: Random): Record<string, Fault> {
  return {
    async kill() {
      const name = random.pick(peers);
      await crew.end(name);
      await delay(random.between(0, 1_500));
      await crew.start(name);
      return `${name} is killed`;
    },
    async killBusiest() {
      const name = await busiestOf(servers, crew);
      await crew.end(name);
      await progress();
      await crew.start(name);
      return `${name} is killed, which has most of the queue`;
    },
    async postgresKilled() {
      const signal = random.pick(["SIGKILL", "SIGQUIT"] as const);
      const name = random.chance(0.5) ? random.pick(peers) : undefined;
      await Promise.all([
        restartPostgres(servers.primary, signal, random.between(0, 2_000)),
        name !== undefined && crew.end(name).then(() => crew.start(name)),
      ]);
      return `Postgres is killed (${signal})${name === undefined ? "" : `, and ${name}`}`;
    },
  };
}

/** Further ones, which lose nothing that was confirmed. */
function furtherFaultsOf(campaign: Campaign, random: Random): Record<string, Fault> {
  const { servers, crew, progress } = campaign;
  const away = async (name: string): Promise<string> => {
    const signal = random.pick(["SIGKILL", "SIGTERM"] as const);
    await crew.end(name, signal);
    const until = Date.now() + takeoverWaitMs;
    const taken = async (): Promise<number> => {
      const sql = `SELECT FROM hawser_data.audit_records WHERE action = 'reassign' AND object = '${name}'`;
      return (await rowsOf(servers.primary.url, sql)).length;
    };
    const before = await taken();
    let isTaken = false;
    await eventually("it is released, or need not be", async () => {
      isTaken = (await taken()) > before;
      return isTaken || Date.now() > until;
    });
    await progress();
    await crew.start(name);
    return `${name} is away (${signal})${isTaken ? ", and what is stored for it is released" : ""}`;
  };
  return {
    async stops() {
      const name = random.pick(peers);
      for (let stop = 0; stop < 2; stop++) {
        await crew.end(name, "SIGTERM");
        await crew.start(name);
        await delay(random.between(0, 700));
      }
      return `${name} stops twice in a row`;
    },
    async stopsOfGroup() {
      const names = ofPart(random.pick(["red", "blue", "solo"]));
      for (let stop = 0; stop < 2; stop++) {
        await Promise.all(names.map((name) => crew.end(name, "SIGTERM")));
        await crew.start(...names);
      }
      return `${names.join(" and ")} stop twice in a row`;
    },
    async killTwo() {
      const names = ofPart(random.pick(["red", "blue", "solo"]));
      await Promise.all(names.map((name) => crew.end(name)));
      await delay(random.between(0, 3_000));
      await crew.start(...names);
      return `${names.join(" and ")} are killed`;
    },
    async standstill() {
      const name = random.pick([...peers, ...writers]);
      crew.signal(name, "SIGSTOP");
      await delay(standstillMs + random.between(0, 4_000));
      crew.signal(name, "SIGCONT");
      return `${name} stands still`;
    },
    async twin() {
      const name = random.pick(peers);
      const old = crew.dismiss(name);
      onTestFinished(() => void old.child.kill("SIGKILL"));
      old.child.kill("SIGSTOP");
      await onServer(
        servers.primary.url,
        `SELECT pg_terminate_backend(pid) FROM hawser_data.owners WHERE what = 'peer:${name}' AND pid IS NOT NULL`,
      );
      await crew.start(name);
      await progress();
      old.child.kill("SIGCONT");
      const { status, signal, stderr } = await old.ended;
      expect({ status, signal, stderr }).toMatchObject({ status: nameLostStatus });
      return `${name} stands still while another process takes its name`;
    },
    takeoverOfSingle: () => away(random.pick(ofPart("solo"))),
    takeoverInGroup: () => away(random.pick([...ofPart("red"), ...ofPart("blue")])),
    async postgresStill() {
      servers.primary.freeze();
      await delay(random.between(3_000, standstillMs));
      servers.primary.resume();
      return "Postgres stands still";
    },
    async failover() {
      const [begun] = await rowsOf(servers.primary.url, "SELECT clock_timestamp()::text AS at");
      // The standby, which is the primary then, waits for none.
      await onServer(servers.standby.url, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()");
      await servers.failOver();
      campaign.follow();
      await progress();
      await servers.renew();
      await synchronous(servers);
      await onServer(servers.primary.url, `INSERT INTO failovers VALUES ('${begun!["at"]}', clock_timestamp())`);
      return "Postgres fails over";
    },
    async sessions() {
      await onServer(servers.primary.url, endSessionsSql);
      return "all sessions are ended";
    },
    async wire() {
      await campaign.silence(random.between(2_000, standstillMs));
      return "the wire to Postgres is silent, then cut";
    },
    async writerKilled() {
      const name = random.pick(writers);
      await crew.end(name);
      await crew.start(name);
      return `${name} is killed`;
    },
    async clock() {
      const changes = Array.from({ length: 3 }, () => {
        return [random.pick(crew.names), random.between(-300_000, 300_000)] as const;
      });
      for (const [name, ms] of changes) crew.tell(name, `${ms}`);
      return `clocks are set: ${changes.map(([name, ms]) => `${name} by ${ms} ms`).join(", ")}`;
    },
  };
}

it(`each message of a campaign of ${faultCount} faults has its effects once, each key in order (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: 3 * loopTimeoutMs(faultCount),
}, async () => {
  const random = new Random(faultSeed);
  const campaign = await start("all");
  const faults = { ...faultsOf(campaign, random), ...furtherFaultsOf(campaign, random) };
  await storm({ random, count: faultCount, faults, progress: campaign.progress });
  await finish(campaign);
});

it(`each message that is left after failovers which lose commits has its effects once, each key in order (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: 3 * loopTimeoutMs(faultCount),
}, async () => {
  const random = new Random(faultSeed);
  const campaign = await start("enqueue");
  const { servers, crew, progress } = campaign;
  const lost: number[] = [];
  const booked = async (): Promise<number> =>
    (await rowsOf(servers.primary.url, "SELECT count(*)::float8 AS n FROM done"))[0]!["n"] as number;
  const failover = async (): Promise<string> => {
    await servers.cutOff();
    await progress();
    const before = await booked();
    await servers.failOver();
    campaign.follow();
    lost.push(before - (await booked()));
    await progress();
    await servers.renew();
    return `Postgres fails over to a standby that lacks ${lost.at(-1)} effects`;
  };
  // Each kind twice.
  await storm({ random, count: 8, faults: { ...faultsOf(campaign, random), failover }, progress });
  await finish(campaign);
  expect(Math.min(...lost)).toBeGreaterThan(0);
  expect(crew.namesLost).toBeLessThanOrEqual(lost.length * (peers.length + writers.length));
});

/** Ends the load, waits for all effects, and looks at everything. */
async function finish({ servers, crew, progress }: Campaign): Promise<void> {
  const { url } = servers.primary;
  await progress();
  await Promise.all(writers.map((name) => crew.end(name, "SIGTERM")));
  await onServer(
    url,
    `WITH s AS MATERIALIZED (SELECT name, last_at FROM hawser.schedule_status), ended AS MATERIALIZED (
       SELECT s.name, s.last_at, hawser.unschedule(s.name) FROM s
     )
     INSERT INTO last_occurrences SELECT name, last_at FROM ended`,
  );
  await drained(url, crew);
  if ((await left(url)) > 0) console.log(await standstill(url));
  // Without processes nothing comes again.
  await Promise.all(peers.map((name) => crew.end(name, "SIGTERM")));
  const found = await auditCampaign(url);
  console.log(await counts(url));
  if (found.lost.length > 0) {
    const ids = found.lost.slice(0, 50).map((finding) => finding.split(": ")[1]!);
    console.log(`of what is lost, Hawser has ${JSON.stringify(await whereabouts(url, ids))}`);
  }
  expect(crew.unasked).toEqual([]);
  expect(problems(found)).toEqual([]);
}

/** Resolves when nothing is left, or nothing has changed for a long time: what is wrong then, the audit says. */
async function drained(url: string, crew: Crew): Promise<void> {
  let [least, changedAt] = [Infinity, Date.now()];
  await eventually(
    "everything has had its effects, or nothing happens any more",
    async () => {
      const count = await left(url);
      if (count < least) [least, changedAt] = [count, Date.now()];
      return count === 0 || crew.unasked.length > 0 || Date.now() - changedAt > progressLimitMs;
    },
    600_000,
  );
}

/** Name of the process that has most messages of the queue. */
async function busiestOf(servers: PrimaryAndStandby, crew: Crew): Promise<string> {
  let name = "";
  await eventually("one of the processes has messages", async () => {
    const [row] = await rowsOf(
      servers.primary.url,
      `SELECT w.name FROM hawser_data.queue AS q JOIN hawser_data.workers AS w ON w.id = q.worker
        WHERE w.gone_at IS NULL GROUP BY w.name ORDER BY count(*) DESC LIMIT 1`,
    );
    name = String(row?.["name"]);
    return crew.has(name);
  });
  return name;
}

/** From here on what a commit has confirmed survives a failover. */
async function synchronous(servers: PrimaryAndStandby): Promise<void> {
  const { url } = servers.primary;
  await onServer(url, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()");
  await eventually("the standby is synchronous", async () => {
    return (await rowsOf(url, "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'")).length === 1;
  });
  // What was committed before is not waited for by its commit.
  await servers.caughtUp();
}

function withName(databaseUrl: string, name: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set("application_name", name);
  return url.href;
}
