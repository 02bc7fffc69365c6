/**
 * More calls than NATS takes: by the option `capacity`, and because the server does not read (SIGSTOP).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { testGateway } from "../support/gateway.js";
import { auditSql, faultsOf, nothingWrong } from "./support/sql-audit.js";
import { SqlLoad } from "./support/sql-load.js";
import { SqlWitness } from "./support/sql-witness.js";

const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);

it("gives all of 100 sessions their turn where one command may be under way at once", {
  timeout: 120_000,
}, async () => {
  await using gateway = await testGateway({ serverOptions: { capacity: "1" } });
  for (const answerAfterMs of [2, 50]) {
    await using witness = await SqlWitness.open(testNatsUrl(), { answerAfterMs });
    const options = { databaseUrl: gateway.database.url, witness, seed };
    const begun = performance.now();
    await using load = await SqlLoad.start({ ...options, sessions: 100, kinds: ["request"] });
    await delay(10_000);
    await load.stop();
    const findings = await auditSql(load);
    console.log(
      `capacity 1, answers after ${answerAfterMs} ms: ${findings.summary} in ${performance.now() - begun}; at most ${witness.open.most} at once`,
    );
    expect(faultsOf(findings)).toEqual(nothingWrong);
  }
});
