/**
 * `hawser serve` is killed at random under fifty database sessions that call SQL functions of all sorts: alone, and with a
 * second one beside it. HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql, faultsOf, nothingWrong } from "./support/sql-audit.js";
import { sqlDatabase } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";

const kills = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
const flags = ["--call-timeout-ms", `${patientLimits.callTimeoutMs}`];

it(
  `gives no call the answer of another, and the sessions go on, when the only one is killed (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using database = await sqlDatabase(testNatsUrl());
    await using witness = await SqlWitness.open(testNatsUrl());
    await using serve = await ServeProcess.start(database.url, flags);
    await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed, ...patientLimits });
    const recoveries: number[] = [];
    for (let round = 0; round < kills; round++) {
      await load.more(random.between(100, 600));
      await serve.crash();
      // Sessions meet the missing gateway, or only the new one.
      if (random.chance(0.5)) await load.more(random.between(50, 200));
      const back = await serve.start();
      recoveries.push(await load.recovered(back));
      // The very next call of each session works.
      expect(load.firstCalls(back).filter(({ outcome }) => outcome !== "confirmed")).toEqual([]);
    }
    await load.more(200);
    await load.stop();
    const findings = await auditSql(load);
    console.log(
      `the only gateway killed ${kills} times: ${findings.summary}; all sessions back after: ${spread(recoveries)}`,
    );
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(findings.lost).toBe(0);
  },
  loopTimeoutMs(kills),
);

it(
  `gives no call the answer of another when there are two, and either or both are killed (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed + 1);
    await using database = await sqlDatabase(testNatsUrl());
    await using witness = await SqlWitness.open(testNatsUrl());
    await using one = await ServeProcess.start(database.url, flags);
    await using other = await ServeProcess.start(database.url, flags);
    const options = { databaseUrl: database.url, witness, seed: seed + 1, ...patientLimits };
    await using load = await SqlLoad.start(options);
    const recoveries: number[] = [];
    const killOne = async (serve: ServeProcess): Promise<void> => {
      await serve.crash();
      await delay(random.between(0, 300));
      await serve.start();
    };
    for (let made = 0; made < kills; ) {
      await load.more(random.between(100, 400));
      const killed = random.chance(0.3) ? [one, other] : [random.pick([one, other])];
      made += killed.length;
      const begun = performance.now();
      const back = Promise.all(killed.map(killOne));
      if (killed.length === 1) {
        // Whoever is left answers, without a wait for the one that is killed.
        recoveries.push(await load.recovered(begun));
        await back;
      } else {
        await back;
        await load.recovered(performance.now());
      }
    }
    await load.more(200);
    await load.stop();
    const findings = await auditSql(load);
    console.log(`two gateways killed ${kills} times: ${findings.summary}; one took over after: ${spread(recoveries)}`);
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(findings.lost).toBe(0);
  },
  loopTimeoutMs(kills),
);
