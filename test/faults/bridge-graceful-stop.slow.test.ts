/**
 * The `hawser serve` that leads is told to stop (SIGTERM): under numbered messages, and while Postgres does not answer.
 */
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { faultsOf, nothingWrong } from "./support/bridge-audit.js";
import { BridgeRun } from "./support/bridge-run.js";
import { faultSeed, killsPerLoop, loopTimeoutMs, patienceMs, spread } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";

const stops = killsPerLoop(5);
const perSecond = 1_000;

it(`hands the lead over at once, and loses nothing (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(stops),
}, async () => {
  const random = new Random(faultSeed);
  await using database = await sqlDatabase(testNatsUrl());
  await using run = await BridgeRun.start({ databaseUrl: database.url, perSecond });
  const { ledger, group, publisher } = run;
  const takeovers: number[] = [];
  const ends: number[] = [];
  for (let round = 0; round < stops; round++) {
    await publisher.more(random.between(1_000, 3_000));
    const leader = await group.leader();
    const epoch = await ledger.epoch();
    const stoppedAt = Date.now();
    leader.signal("SIGTERM");
    const ended = leader.ended.then(({ status, stderr }) => {
      expect({ status, stderr }).toMatchObject({ status: 0 });
      return Date.now() - stoppedAt;
    });
    const { all } = await ledger.goesOn(stoppedAt, epoch);
    ends.push(await ended);
    takeovers.push(all);
    await leader.start();
  }
  const findings = await run.finish();
  console.log(
    `the leader stopped ${stops} times: ${findings.summary}; all lanes taken over after: ${spread(takeovers)}; ` +
      `ended after: ${spread(ends)}`,
  );
  expect(faultsOf(findings)).toEqual(nothingWrong);
  expect(findings.epochs).toBeGreaterThan(stops);
});

const stopTimeoutMs = 1_000;

it("ends by its deadline, or soon after it, when Postgres is frozen, or has ended", {
  timeout: patienceMs,
}, async () => {
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  const flags = ["--stop-timeout", `${stopTimeoutMs}ms`];
  await using run = await BridgeRun.start({ databaseUrl: postgres.url, processes: 2, flags, perSecond });
  const { ledger, group, publisher } = run;
  for (const how of ["frozen", "ended"] as const) {
    await publisher.more(300);
    if (how === "ended") await postgres.kill("SIGKILL");
    else postgres.freeze();
    await publisher.more(300);
    const stoppedAt = performance.now();
    const ends = group.members.map(async (member) => {
      member.signal("SIGTERM");
      const { status } = await member.ended;
      return { status, afterMs: Math.round(performance.now() - stoppedAt) };
    });
    const found = await Promise.all(ends);
    // Postgres must be available to the test's cleanup.
    if (how === "ended") await postgres.start();
    else postgres.resume();
    console.log(`stopped while Postgres was ${how}, deadline ${stopTimeoutMs} ms: ${JSON.stringify(found)}`);
    expect(found.map(({ status }) => status)).toEqual([0, 0]);
    if (how === "ended") break;
    const since = Date.now();
    await Promise.all(group.members.map((member) => member.start()));
    await ledger.goesOn(since, 0n);
  }
});
