/**
 * `hawser serve` is killed or told to stop, or nats-server or Postgres is killed, at random under many database sessions that call
 * SQL functions of all sorts. HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { natsServerIsFrom, startNatsServer } from "../support/nats-server.js";
import { faultSeed, killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { ownPostgres } from "./support/own-postgres.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql } from "./support/sql-audit.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";
import { storm } from "./support/storm.js";

const flags = ["--call-timeout", `${patientLimits.callTimeoutMs}ms`];

const gatewayFaults = Math.max(3, killsPerLoop(2));

it(`no call has the answer of another, and sessions go on, when either or both of two gateways are killed, or one stops (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(gatewayFaults),
}, async () => {
  const random = new Random(faultSeed);
  await using database = await sqlDatabase(testNatsUrl());
  await using witness = await SqlWitness.open(testNatsUrl());
  await using one = await ServeProcess.start(database.url, flags);
  await using other = await ServeProcess.start(database.url, flags);
  await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed: faultSeed, ...patientLimits });
  /** The one that has the sessions: at first the newest one, later the one that was not started again. */
  let holder = other;
  const times = { killed: [] as number[], stopped: [] as number[] };
  /** The very next call of each session works. */
  const goOn = async (since: number): Promise<void> => {
    await load.recovered(since);
    expect(load.firstCalls(since).filter(({ outcome }) => outcome !== "confirmed")).toEqual([]);
  };
  const made = await storm({
    ...{ random, count: gatewayFaults },
    faults: {
      async oneKilled() {
        const killed = random.pick([one, other]);
        const begun = performance.now();
        await killed.crash();
        // Whoever is left answers, without a wait for the one that is killed.
        times.killed.push(await load.recovered(begun));
        await goOn(await killed.start());
        holder = killed === one ? other : one;
      },
      async bothKilled() {
        await Promise.all([one.crash(), other.crash()]);
        // Sessions meet the missing gateways, or only the new ones.
        if (random.chance(0.5)) await load.more(random.between(50, 200));
        await one.start();
        await goOn(await other.start());
        holder = one;
      },
      async oneStops() {
        const begun = performance.now();
        await holder.stop();
        // What is under way ends first, and the next calls go to the other gateway.
        await goOn(performance.now());
        times.stopped.push(await load.recovered(begun));
        expect(load.calls.filter(({ ended, outcome }) => ended > begun && outcome === "unknown")).toEqual([]);
        await holder.start();
        holder = holder === one ? other : one;
      },
    },
    progress: () => load.more(random.between(100, 500)),
  });
  await load.more(200);
  await Promise.all([one.stop(), other.stop()]);
  const gone = performance.now();
  await eventually("each session has met the missing gateways", () => load.firstCalls(gone).length === load.sessions);
  expect(load.firstCalls(gone).filter(({ sqlstate }) => sqlstate !== "08001")).toEqual([]);
  await load.stop();
  const found = await auditSql(load);
  console.log(
    `${JSON.stringify(made)}: ${found.summary}; the other gateway took over after: ${spread(times.killed)}; ` +
      `after a stop: ${spread(times.stopped)}`,
  );
  expect(problems(found.findings)).toEqual([]);
  expect(found.coreLost).toBe(0);
});

const natsKills = killsPerLoop(3);
/** Up to 2.9 no server can be told so; there too the system has what is acknowledged, which outlives the process. */
const durable = (await natsServerIsFrom("2.10")) ? "jetstream { sync_interval: always }" : "";
/** Core messages that were lost with a server do not come, however long they are waited for. */
const onTheirWayMs = 1_000;

// On the same port and store, and told to sync each write: what it acknowledged is there afterwards.
it(`nothing is stored twice, nothing acknowledged is lost, each call ends in time, when NATS is killed, at times with the gateway (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(natsKills),
}, async () => {
  const random = new Random(faultSeed + 1);
  await using nats = await startNatsServer({ jetStream: true, config: durable });
  await using database = await sqlDatabase(nats.url);
  await using witness = await SqlWitness.open(nats.url);
  await using serve = await ServeProcess.start(database.url);
  await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed: faultSeed });
  const recoveries: number[] = [];
  for (let round = 0; round < natsKills; round++) {
    await load.more(random.between(100, 600));
    const { pid } = serve;
    const withGateway = round % 2 === 1;
    const killNats = async (): Promise<void> => {
      if (random.chance(0.7)) await nats.kill();
      else await nats.stop();
      // Away for less than calls wait for it, or for more.
      await delay(random.chance(0.5) ? random.between(0, 300) : random.between(1_000, 2_500));
      await nats.restart();
    };
    const killGateway = async (): Promise<void> => {
      await delay(random.between(0, 200));
      await serve.crash();
      await serve.start();
    };
    await Promise.all([killNats(), ...(withGateway ? [killGateway()] : [])]);
    const recovery = await load.recovered(performance.now());
    if (withGateway) continue;
    recoveries.push(recovery);
    expect(serve.isRunning && serve.pid).toBe(pid);
  }
  await load.more(200);
  await load.stop();
  const found = await auditSql(load, onTheirWayMs);
  console.log(`NATS killed ${natsKills} times: ${found.summary}; all sessions back after: ${spread(recoveries)}`);
  expect(problems(found.findings)).toEqual([]);
});

const postgresKills = killsPerLoop(10);

it("new sessions are served at once when Postgres is back, and the definition of the server is followed again", {
  timeout: loopTimeoutMs(postgresKills),
}, async () => {
  await using postgres = await ownPostgres();
  await using nats = await startNatsServer({ jetStream: true });
  await using elsewhere = await startNatsServer();
  await prepareForSql(postgres.url, nats.url);
  await using serve = await ServeProcess.start(postgres.url, flags);
  await using late = ServeProcess.make(postgres.url);
  const { pid } = serve;
  const recoveries: number[] = [];
  for (let round = 0; round < postgresKills; round++) {
    const options = { databaseUrl: postgres.url, sessions: 20, seed: faultSeed + round, ...patientLimits };
    await using witness = await SqlWitness.open(nats.url);
    await using cut = await SqlLoad.start({ ...options, witness, mayEnd: true });
    await cut.more(200);
    await postgres.kill(round % 2 === 0 ? "SIGKILL" : "SIGQUIT");
    await cut.stop();
    if (round === 0) await expectToWait(late);
    await postgres.start();
    const back = performance.now();
    await using freshWitness = await SqlWitness.open(nats.url);
    await using fresh = await SqlLoad.start({ ...options, witness: freshWitness });
    await fresh.recovered(back);
    recoveries.push(performance.now() - back);
    await fresh.more(200);
    await fresh.stop();
    const [before, after] = [await auditSql(cut), await auditSql(fresh)];
    console.log(`Postgres killed: ${before.summary}\nafterwards: ${after.summary}`);
    expect([before, after].map(({ findings }) => problems(findings))).toEqual([[], []]);
    expect(after.summary).toContain("errors: none");

    // The running gateway must notice each new server by itself.
    const session = new pg.Client({ connectionString: postgres.url });
    session.on("error", () => undefined);
    await session.connect();
    for (const { url } of [elsewhere, nats]) {
      await defineServer(session, url);
      await eventually("the gateway uses the other server", async () => {
        const found = session.query<{ port: number }>("SELECT port FROM nats_get_server_info()");
        return await found.then(
          ({ rows }) => `${rows[0]!.port}` === new URL(url).port,
          () => false,
        );
      });
    }
    await session.end();
  }
  expect(serve.isRunning && serve.pid).toBe(pid);
  console.log(`Postgres killed ${postgresKills} times: new sessions served after ${spread(recoveries)}`);

  // A gateway that found no Postgres starts as soon as Postgres does, and serves alone.
  await serve.crash();
  await late.start();
  await using witness = await SqlWitness.open(nats.url);
  await using load = await SqlLoad.start({ databaseUrl: postgres.url, witness, sessions: 2, seed: 1, kinds: ["core"] });
  await load.recovered(performance.now());
});

/** Expects the gateway to report the missing Postgres and wait for it. */
async function expectToWait(serve: ServeProcess): Promise<void> {
  serve.launch();
  await eventually("it says that it waits", () => serve.log.some(({ msg }) => msg.startsWith("waiting for Postgres")));
  await serve.crash();
}
