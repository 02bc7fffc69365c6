/**
 * The `hawser serve` that leads is killed among three, again and again, under numbered messages for several subscriptions of
 * several roles.
 */
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { faultsOf, nothingWrong } from "./support/bridge-audit.js";
import { ServeGroup } from "./support/bridge-group.js";
import { BridgeLedger } from "./support/bridge-ledger.js";
import { BridgePublisher } from "./support/bridge-publisher.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { sqlDatabase } from "./support/sql-database.js";

const kills = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
const takeoverLimitMs = 10_000;
/** Until the last lane has gone on: whoever takes over repeats what it has kept. */
const completeLimitMs = 20_000;

it(
  `loses no message and never has two leaders when the leader is killed (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using database = await sqlDatabase(testNatsUrl());
    await using ledger = await BridgeLedger.make(database.url);
    await using group = await ServeGroup.start(database.url, 3);
    const { subjects } = ledger;
    await using publisher = await BridgePublisher.open({ natsUrl: testNatsUrl(), subjects, perSecond: 1_000 });
    await ledger.isLive(() => publisher.probe());
    publisher.begin();
    const takeovers: number[] = [];
    const complete: number[] = [];
    for (let round = 0; round < kills; round++) {
      await publisher.more(random.between(300, 1_500));
      // Batches are small when little arrives, and large when much does.
      if (random.chance(0.5)) publisher.pace(random.pick([100, 1_000, 2_000]));
      const leader = await group.leader();
      const other = random.chance(0.3) ? random.pick(group.others) : undefined;
      const epoch = await ledger.epoch();
      const killedAt = Date.now();
      await Promise.all([leader, other].map((member) => member?.crash()));
      const back = Promise.all([leader, other].map((member) => member?.start()));
      const { first, all } = await ledger.goesOn(killedAt, epoch);
      takeovers.push(first);
      complete.push(all);
      await back;
      // Only when all that came before they were back is done, each of the three has whatever the leader may not have done.
      for (const member of group.members) await group.receives(member);
      await publisher.more(20);
      await ledger.reaches(publisher.last);
    }
    await publisher.more(300);
    await publisher.end();
    await ledger.reaches(publisher.last);
    const findings = await ledger.audit(publisher.last);
    console.log(
      `the leader killed ${kills} times: ${findings.summary}; ` +
        `taken over after: ${spread(takeovers)}; all lanes after: ${spread(complete)}`,
    );
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(findings.epochs).toBeGreaterThan(kills);
    expect(publisher.unheard.size).toBe(0);
    expect(Math.max(...takeovers)).toBeLessThan(takeoverLimitMs);
    expect(Math.max(...complete)).toBeLessThan(completeLimitMs);
  },
  // A takeover alone takes some five seconds.
  loopTimeoutMs(2 * kills),
);
