/**
 * `hawser serve` is told to stop (SIGTERM) under load: what is under way ends first.
 */
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { killsPerLoop, loopTimeoutMs, faultSeed as seed, spread } from "./support/kills.js";
import { ServeProcess } from "./support/serve-process.js";
import { auditSql, faultsOf, nothingWrong } from "./support/sql-audit.js";
import { sqlDatabase } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";

/** Each of the two at least once. */
const stops = Math.max(2, killsPerLoop(10));
const flags = ["--call-timeout", `${patientLimits.callTimeoutMs}ms`];

it(
  `leaves no call of 50 sessions unanswered, and the next ones go to the other gateway (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    await using database = await sqlDatabase(testNatsUrl());
    await using witness = await SqlWitness.open(testNatsUrl());
    await using one = await ServeProcess.start(database.url, flags);
    await using other = await ServeProcess.start(database.url, flags);
    await using load = await SqlLoad.start({ databaseUrl: database.url, witness, seed, ...patientLimits });
    const ends: number[] = [];
    const recoveries: number[] = [];
    for (let round = 0; round < stops; round++) {
      await load.more(400);
      // The newest one has all sessions.
      const stopped = round % 2 === 0 ? other : one;
      const begun = performance.now();
      stopped.signal("SIGTERM");
      const { status, stderr } = await stopped.ended;
      ends.push(performance.now() - begun);
      expect({ status, stderr }).toMatchObject({ status: 0 });
      const gone = performance.now();
      await load.recovered(gone);
      expect(load.firstCalls(gone).filter(({ outcome }) => outcome !== "confirmed")).toEqual([]);
      recoveries.push(await load.recovered(begun));
      await stopped.start();
    }
    await load.more(100);
    one.signal("SIGTERM");
    other.signal("SIGTERM");
    expect((await Promise.all([one.ended, other.ended])).map(({ status }) => status)).toEqual([0, 0]);
    const gone = performance.now();
    await eventually("each session has met the missing gateways", () => load.firstCalls(gone).length === load.sessions);
    expect(load.firstCalls(gone).filter(({ sqlstate }) => sqlstate !== "08001")).toEqual([]);
    await load.stop();
    const findings = await auditSql(load);
    console.log(
      `stopped ${stops} times: ${findings.summary}; ended after ${spread(ends)}; all sessions served by the other ` +
        `after ${spread(recoveries)}`,
    );
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(load.calls.filter(({ outcome }) => outcome === "unknown")).toEqual([]);
    expect(findings.lost).toBe(0);
  },
  loopTimeoutMs(stops),
);
