/**
 * A campaign over all features at once. Two groups, two single listeners that take over from each other, a listener of direct messages
 * and two writers run, each in a process of its own, on a Postgres whose standby is synchronous. Messages are enqueued with and without
 * keys, in batches, for all listeners, for later, cancelled, asked and answered, sent directly and by schedules; handlers fail by what
 * the message says, so that it is tried again at once, or parked. Meanwhile one fault follows another. The transaction that enqueues
 * notes in a table what it has enqueued; in the end each of these messages has had its effect once for each of its consumers, each key
 * is in order, and what was rolled back or cancelled has had none.
 *
 * HAWSER_FAULT_SEED repeats the choices of a run (not its timing), HAWSER_CAMPAIGN_FAULTS says how many faults there are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it, onTestFinished } from "vitest";
import { migrate } from "../../src/store/index.js";
import { Random } from "../simulator/random.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type Program, startProgram } from "../support/program.js";
import { type PrimaryAndStandby, startPrimaryAndStandby } from "../support/standby.js";
import { auditLedger, counts, createLedger, nothingWrong, unfinished, whereabouts } from "./support/campaign-audit.js";
import { nameLostStatus } from "./support/campaign-protocol.js";
import { endSessionsSql, faultSeed, loopTimeoutMs } from "./support/kills.js";

const faults = Number(process.env["HAWSER_CAMPAIGN_FAULTS"] ?? 15);
/** The part of each peer. */
const peers: Readonly<Record<string, string>> = {
  "red-1": "red",
  "red-2": "red",
  "blue-1": "blue",
  "blue-2": "blue",
  "solo-1": "solo",
  "solo-2": "solo",
  "sink-1": "sink",
};
const writers = ["writer-1", "writer-2"];
/** Effects between two faults. */
const step = 60;
/** Longer than leases last and than sessions may be idle in a transaction. */
const standstillMs = 11_000;
/** How long a takeover is waited for. There is none if nothing is stored for the peer. */
const takeoverWaitMs = 12_000;
/** Time without any progress after which what is unfinished counts as lost. */
const progressLimitMs = 60_000;

it(`each message of a campaign of ${faults} faults has its effects once, each key in order (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: 3 * loopTimeoutMs(faults),
}, async () => {
  const random = new Random(faultSeed);
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await createLedger(servers.primary.url);
  await onServer(
    servers.primary.url,
    "CREATE TABLE failovers (begun timestamptz, ended timestamptz)",
    "CREATE TABLE last_occurrences (name text, at timestamptz)",
  );
  await synchronous(servers);
  await using proxy = await startProxy(servers.primary.url);

  const running = new Map<string, Program>();
  const unasked: string[] = [];
  let started = 0;
  const start = async (name: string): Promise<void> => {
    const isPeer = name in peers;
    const url = new URL(proxy.url);
    url.searchParams.set("application_name", name);
    const program = startProgram(
      `test/faults/programs/campaign-${isPeer ? "peer" : "writer"}.ts`,
      [name, isPeer ? peers[name]! : String(faultSeed + ++started)],
      { env: { HAWSER_DATABASE_URL: url.href } },
    );
    running.set(name, program);
    void program.ended.then(({ status, signal, stderr }) => {
      if (running.get(name) === program) unasked.push(`${name} has ended (${status ?? signal}): ${stderr}`);
    });
    await program.firstLine;
  };
  /** Ends a process. @returns its exit status, or the signal that ended it */
  const end = async (name: string, signal: "SIGKILL" | "SIGTERM"): Promise<number | string | null> => {
    const { child, ended } = running.get(name)!;
    running.delete(name);
    child.kill(signal);
    const { status, signal: endedBy, stderr } = await ended;
    if (signal === "SIGTERM" && status !== 0) unasked.push(`${name} has stopped with ${status ?? endedBy}: ${stderr}`);
    return status ?? endedBy;
  };
  onTestFinished(async () => {
    for (const { child } of running.values()) child.kill("SIGCONT");
    await Promise.all([...running.keys()].map((name) => end(name, "SIGKILL")));
  });

  const peerNames = Object.keys(peers);
  const ofPart = (part: string): string[] => peerNames.filter((name) => peers[name] === part);
  await Promise.all(peerNames.map(start));
  await onServer(
    servers.primary.url,
    `SELECT hawser.schedule('all', '* * * * * *', 'jobs', '{}', missed => 'all')`,
    `SELECT hawser.schedule('one', '*/2 * * * * *', 'work', '{}', missed => 'one')`,
  );
  await Promise.all(writers.map(start));

  const effects = async (): Promise<number> => {
    const [row] = await rowsOf(servers.primary.url, "SELECT last_value::float8 AS n FROM done_nth_seq").catch(() => []);
    return (row?.["n"] as number | undefined) ?? 0;
  };
  const progress = async (): Promise<void> => {
    const from = await effects();
    await eventually(`${step} more effects happen`, async () => {
      if (unasked.length > 0) throw new Error(unasked.join("\n"));
      return (await effects()) >= from + step;
    });
  };
  /** The process that relays: the one on whose session the newest turn was taken. */
  const relay = async (): Promise<string> => {
    let name = "";
    await eventually("one of the processes relays", async () => {
      const [row] = await rowsOf(
        servers.primary.url,
        `SELECT a.application_name AS name FROM hawser_data.outbox_turns AS t JOIN pg_stat_activity AS a USING (pid) WHERE t.sink = 1 ORDER BY t.turn DESC LIMIT 1`,
      );
      name = String(row?.["name"]);
      return running.has(name);
    });
    return name;
  };
  let takeovers = 0;
  const away = async (name: string, signal: "SIGKILL" | "SIGTERM"): Promise<string> => {
    await end(name, signal);
    const until = Date.now() + takeoverWaitMs;
    const taken = `SELECT FROM hawser_data.channels WHERE listener_name = '${name}' AND owner IS NOT NULL`;
    const before = (await rowsOf(servers.primary.url, taken)).length;
    let isTaken = false;
    await eventually("a takeover happens, or is not needed", async () => {
      isTaken = (await rowsOf(servers.primary.url, taken)).length > before;
      return isTaken || Date.now() > until;
    });
    if (isTaken) takeovers += 1;
    await progress();
    await start(name);
    return `${name} is away (${signal})${isTaken ? ", and others take over" : ""}`;
  };

  const kinds: Record<string, () => Promise<string>> = {
    async stops() {
      const name = random.pick(peerNames);
      for (let stop = 0; stop < 2; stop++) {
        await end(name, "SIGTERM");
        await start(name);
        await delay(random.between(0, 700));
      }
      return `${name} stops twice in a row`;
    },
    async stopsOfGroup() {
      const names = ofPart(random.pick(["red", "blue", "solo"]));
      for (let stop = 0; stop < 2; stop++) {
        await Promise.all(names.map((name) => end(name, "SIGTERM")));
        await Promise.all(names.map(start));
      }
      return `${names.join(" and ")} stop twice in a row`;
    },
    async kill() {
      const name = random.pick(peerNames);
      await end(name, "SIGKILL");
      await delay(random.between(0, 1_500));
      await start(name);
      return `${name} is killed`;
    },
    async killTwo() {
      const names = ofPart(random.pick(["red", "blue", "solo"]));
      await Promise.all(names.map((name) => end(name, "SIGKILL")));
      await delay(random.between(0, 3_000));
      await Promise.all(names.map(start));
      return `${names.join(" and ")} are killed`;
    },
    async killRelay() {
      const name = await relay();
      await end(name, "SIGKILL");
      await progress();
      await start(name);
      return `${name} is killed, which relays`;
    },
    async standstill() {
      const name = random.pick([...peerNames, ...writers]);
      const { child } = running.get(name)!;
      child.kill("SIGSTOP");
      await delay(standstillMs + random.between(0, 4_000));
      child.kill("SIGCONT");
      return `${name} stands still`;
    },
    async twin() {
      const name = random.pick(peerNames);
      const old = running.get(name)!;
      running.delete(name);
      old.child.kill("SIGSTOP");
      await onServer(
        servers.primary.url,
        `SELECT pg_terminate_backend(pid) FROM hawser_data.owners WHERE what = 'peer:${name}' AND pid IS NOT NULL`,
      );
      await start(name);
      await progress();
      old.child.kill("SIGCONT");
      const { status, signal, stderr } = await old.ended;
      if (status !== nameLostStatus) unasked.push(`the old ${name} has ended with ${status ?? signal}: ${stderr}`);
      return `${name} stands still while another process takes its name`;
    },
    takeoverOfSingle: () => away(random.pick(ofPart("solo")), random.pick(["SIGKILL", "SIGTERM"])),
    takeoverInGroup: () =>
      away(random.pick([...ofPart("red"), ...ofPart("blue")]), random.pick(["SIGKILL", "SIGTERM"])),
    async postgresKilled() {
      const signal = random.pick(["SIGKILL", "SIGQUIT"] as const);
      await servers.primary.kill(signal);
      await delay(random.between(0, 2_000));
      await servers.primary.start();
      return `Postgres is killed (${signal})`;
    },
    async postgresStill() {
      servers.primary.freeze();
      await delay(random.between(3_000, standstillMs));
      servers.primary.resume();
      return "Postgres stands still";
    },
    async failover() {
      const [begun] = await rowsOf(servers.primary.url, "SELECT clock_timestamp()::text AS at");
      await failOver(servers);
      proxy.leadTo(servers.primary.url);
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
      proxy.freeze();
      await delay(random.between(2_000, standstillMs));
      // Both ends hear of it: a session whose end is not heard of holds the locks of its transaction until keepalives tell.
      proxy.cut();
      return "the wire to Postgres is silent, then cut";
    },
    async writerKilled() {
      const name = random.pick(writers);
      await end(name, "SIGKILL");
      await start(name);
      return `${name} is killed`;
    },
    async clock() {
      const names = [...running.keys()];
      const changes = Array.from({ length: 3 }, () => [random.pick(names), random.between(-300_000, 300_000)] as const);
      for (const [name, ms] of changes) running.get(name)!.child.stdin!.write(`${ms}\n`);
      return `clocks are set: ${changes.map(([name, ms]) => `${name} by ${ms} ms`).join(", ")}`;
    },
  };

  const begunAt = Date.now();
  const seconds = (): string => `${Math.round((Date.now() - begunAt) / 1_000)} s`;
  let deck: string[] = [];
  const chosen: Record<string, number> = {};
  for (let made = 1; made <= faults; made++) {
    await progress();
    // Each kind comes before one comes again; the first are those that belong to no server.
    if (deck.length === 0) deck = shuffled(random, Object.keys(kinds));
    const kind = deck.pop()!;
    chosen[kind] = (chosen[kind] ?? 0) + 1;
    const words = await kinds[kind]!();
    console.log(`${seconds()}, ${await effects()} effects: fault ${made} of ${faults}, ${words}`);
  }
  await progress();

  await Promise.all(writers.map((name) => end(name, "SIGTERM")));
  await onServer(
    servers.primary.url,
    `WITH s AS MATERIALIZED (SELECT name, last_at FROM hawser.schedule_status), ended AS MATERIALIZED (
       SELECT s.name, s.last_at, hawser.unschedule(s.name) FROM s
     )
     INSERT INTO last_occurrences SELECT name, last_at FROM ended`,
  );
  await drained(servers.primary.url, unasked);
  // Without processes nothing comes again.
  await Promise.all(peerNames.map((name) => end(name, "SIGTERM")));
  const found = await auditLedger(servers.primary.url);
  console.log(`${seconds()}: ${faults} faults (${JSON.stringify(chosen)}), ${takeovers} takeovers seen`);
  console.log(await counts(servers.primary.url));
  if (found.lost.length > 0) {
    const ids = found.lost.slice(0, 50).map(({ id }) => String(id));
    console.log(`of what is lost, Hawser has ${JSON.stringify(await whereabouts(servers.primary.url, ids))}`);
  }
  for (const [name, rows] of Object.entries(found)) {
    console.log(`${rows.length} ${name}`);
    for (const row of rows.slice(0, 20)) console.log(`  ${JSON.stringify(row)}`);
  }
  expect(unasked).toEqual([]);
  // What is printed above has more of it.
  expect(Object.fromEntries(Object.entries(found).map(([name, rows]) => [name, rows.slice(0, 3)]))).toEqual(
    nothingWrong,
  );
});

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

/** The primary is killed, and the standby takes its place, which does not wait for a standby. */
async function failOver(servers: PrimaryAndStandby): Promise<void> {
  await onServer(servers.standby.url, "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()");
  await servers.failOver();
}

/** Resolves when nothing is unfinished, or nothing has changed for a long time: what is wrong then, the audit says. */
async function drained(url: string, unasked: readonly string[]): Promise<void> {
  let [least, changedAt] = [Infinity, Date.now()];
  await eventually(
    "everything has had its effects, or nothing happens any more",
    async () => {
      const count = await unfinished(url);
      if (count < least) [least, changedAt] = [count, Date.now()];
      return count === 0 || unasked.length > 0 || Date.now() - changedAt > progressLimitMs;
    },
    600_000,
  );
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const rest = [...items];
  return items.map(() => rest.splice(random.between(0, rest.length - 1), 1)[0]!);
}
