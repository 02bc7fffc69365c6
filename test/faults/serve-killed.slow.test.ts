/** A kill (SIGKILL) of a `hawser serve` under a light load of calls and subscriptions. */
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { problems } from "./support/ledger.js";
import { auditSql } from "./support/sql-audit.js";
import { sqlDatabase } from "./support/sql-database.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";
import { Subscriptions } from "./support/subscriptions.js";

it("`hawser serve` that leads and answers is killed: calls and subscriptions go on with the other one", async () => {
  await using database = await sqlDatabase(testNatsUrl());
  const flags = ["--call-timeout", `${patientLimits.callTimeoutMs}ms`];
  await using run = await Subscriptions.start({ databaseUrl: database.url, processes: 2, flags, perSecond: 200 });
  const { group, ledger, publisher } = run;
  await using witness = await SqlWitness.open(testNatsUrl());
  await using load = await SqlLoad.start({
    ...{ databaseUrl: database.url, witness, sessions: 8, seed: 1 },
    ...patientLimits,
  });
  await Promise.all([publisher.more(100), load.more(100)]);
  const leader = await group.leader();
  const epoch = await ledger.epoch();
  const killedAt = Date.now();
  await leader.crash();
  await load.recovered(performance.now());
  await ledger.goesOn(killedAt, epoch);
  await load.stop();
  const calls = await auditSql(load);
  expect(problems(calls.findings)).toEqual([]);
  expect(calls.coreLost).toBe(0);
  const found = await run.finish();
  expect(problems(found.findings)).toEqual([]);
  expect(found.epochs).toBe(2);
});
