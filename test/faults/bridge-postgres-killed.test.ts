/**
 * Postgres is killed and started again under three `hawser serve`, and numbered messages for several subscriptions of several
 * roles: what arrives meanwhile waits in memory.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { faultsOf, nothingWrong } from "./support/bridge-audit.js";
import { ServeGroup } from "./support/bridge-group.js";
import { BridgeLedger } from "./support/bridge-ledger.js";
import { BridgePublisher } from "./support/bridge-publisher.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql } from "./support/sql-database.js";

const kills = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
const recoveryLimitMs = 10_000;

it(
  `loses no message when Postgres is killed, and has one leader at a time (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using postgres = await ownPostgres();
    await prepareForSql(postgres.url, testNatsUrl());
    await using ledger = await BridgeLedger.make(postgres.url);
    await using group = await ServeGroup.start(postgres.url, 3);
    const { subjects } = ledger;
    await using publisher = await BridgePublisher.open({ natsUrl: testNatsUrl(), subjects, perSecond: 1_000 });
    await ledger.isLive(() => publisher.probe());
    publisher.begin();
    const pids = group.members.map(({ pid }) => pid);
    const recoveries: number[] = [];
    for (let round = 0; round < kills; round++) {
      await publisher.more(random.between(300, 1_500));
      await postgres.kill(random.chance(0.7) ? "SIGKILL" : "SIGQUIT");
      // Away for a moment, or for longer than the others wait for a leader that says nothing.
      await delay(random.chance(0.7) ? random.between(0, 500) : random.between(4_000, 6_000));
      await postgres.start();
      const { all } = await ledger.goesOn(Date.now(), 0n);
      recoveries.push(all);
    }
    await publisher.more(300);
    await publisher.end();
    await ledger.reaches(publisher.last);
    const findings = await ledger.audit(publisher.last);
    console.log(`Postgres killed ${kills} times: ${findings.summary}; all lanes go on after: ${spread(recoveries)}`);
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(publisher.unheard.size).toBe(0);
    expect(group.members.map(({ pid, isRunning }) => isRunning && pid)).toEqual(pids);
    expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
  },
  loopTimeoutMs(kills),
);
