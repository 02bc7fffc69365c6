/**
 * nats-server is killed and started again, on the same port and store, under fifty database sessions that call SQL
 * functions of all sorts. It is told to sync each write, where it can, so that what it acknowledged is there afterwards.
 * HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { natsServerIsFrom, startNatsServer } from "../support/nats-server.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql, faultsOf, nothingWrong } from "./support/sql-audit.js";
import { sqlDatabase } from "./support/sql-database.js";
import { SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";

const kills = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
/** Up to 2.9 no server can be told so; there too the system has what is acknowledged, which outlives the process. */
const durable = (await natsServerIsFrom("2.10")) ? "jetstream { sync_interval: always }" : "";
/** Connecting is tried again after pauses that double up to 5 s. */
const recoveryLimitMs = 10_000;
/** Core messages that were lost with a server do not come, however long they are waited for. */
const onTheirWayMs = 1_000;

it(
  `stores nothing twice and loses nothing acknowledged; each call ends in time (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using nats = await startNatsServer({ jetStream: true, config: durable });
    await using database = await sqlDatabase(nats.url);
    await using witness = await SqlWitness.open(nats.url);
    await using serve = await ServeProcess.start(database.url);
    await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed });
    const recoveries: number[] = [];
    for (let round = 0; round < kills; round++) {
      await load.more(random.between(100, 600));
      if (random.chance(0.7)) await nats.kill();
      else await nats.stop();
      // Away for less than calls wait for it, or for more.
      await delay(random.chance(0.5) ? random.between(0, 300) : random.between(1_000, 2_500));
      await nats.restart();
      const back = performance.now();
      recoveries.push(await load.recovered(back));
    }
    await load.more(200);
    await load.stop();
    expect(serve.isRunning).toBe(true);
    const findings = await auditSql(load, onTheirWayMs);
    console.log(`NATS killed ${kills} times: ${findings.summary}; all sessions back after: ${spread(recoveries)}`);
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
  },
  loopTimeoutMs(kills),
);

it(
  `does the same when the gateway is killed, too (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed + 1);
    await using nats = await startNatsServer({ jetStream: true, config: durable });
    await using database = await sqlDatabase(nats.url);
    await using witness = await SqlWitness.open(nats.url);
    await using serve = await ServeProcess.start(database.url);
    await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed: seed + 1 });
    for (let made = 0; made < kills; made += 2) {
      await load.more(random.between(100, 600));
      const backs = [
        async () => {
          await delay(random.between(0, 200));
          await nats.kill();
          await delay(random.between(0, 1_000));
          await nats.restart();
        },
        async () => {
          await delay(random.between(0, 200));
          await serve.crash();
          await serve.start();
        },
      ];
      await Promise.all(backs.map((back) => back()));
      await load.recovered(performance.now());
    }
    await load.stop();
    const findings = await auditSql(load, onTheirWayMs);
    console.log(`NATS and the gateway killed, ${kills} kills: ${findings.summary}`);
    expect(faultsOf(findings)).toEqual(nothingWrong);
  },
  loopTimeoutMs(kills),
);
