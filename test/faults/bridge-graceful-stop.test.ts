/**
 * The `hawser serve` that leads is told to stop (SIGTERM): under numbered messages, and while Postgres does not answer.
 */
import { expect, it } from "vitest";
import { median } from "../../bench/statistics.js";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { faultsOf, nothingWrong } from "./support/bridge-audit.js";
import { ServeGroup } from "./support/bridge-group.js";
import { BridgeLedger } from "./support/bridge-ledger.js";
import { BridgePublisher } from "./support/bridge-publisher.js";
import { killsPerLoop, loopTimeoutMs, patienceMs, spread } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";

const stops = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);
const perSecond = 1_000;
/** Counted from the end of the last leader, which first runs what has arrived. In the middle, and at the most. */
const takeoverLimitMs = 2_000;
const longestTakeoverMs = 10_000;
const stopLimitMs = 10_000;
/** What is repeated is of the last half second before the end, and of what is on its way then. */
const repeatedLimitMs = 1_500;

it(
  `hands the lead over at once, and loses nothing (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using database = await sqlDatabase(testNatsUrl());
    await using ledger = await BridgeLedger.make(database.url);
    await using group = await ServeGroup.start(database.url, 3);
    const { subjects } = ledger;
    await using publisher = await BridgePublisher.open({ natsUrl: testNatsUrl(), subjects, perSecond });
    await ledger.isLive(() => publisher.probe());
    publisher.begin();
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
    await publisher.more(300);
    await publisher.end();
    await ledger.reaches(publisher.last);
    const findings = await ledger.audit(publisher.last);
    console.log(
      `the leader stopped ${stops} times: ${findings.summary}; all lanes taken over after: ${spread(takeovers)}; ` +
        `ended after: ${spread(ends)}`,
    );
    expect(faultsOf(findings)).toEqual(nothingWrong);
    expect(findings.epochs).toBeGreaterThan(stops);
    const afterEnds = takeovers.map((ms, round) => ms - ends[round]!);
    expect(median(afterEnds)).toBeLessThan(takeoverLimitMs);
    expect(Math.max(...afterEnds)).toBeLessThan(longestTakeoverMs);
    expect(Math.max(...ends)).toBeLessThan(stopLimitMs);
    // Each message is for two lanes.
    expect(findings.repeated).toBeLessThan((stops * 2 * perSecond * repeatedLimitMs) / 1_000);
  },
  loopTimeoutMs(stops),
);

const stopDeadlineMs = 3_000;

/** Where Postgres is frozen, giving the lead back is tried, and an answer waited for. And the machine has other work, too. */
const slackMs = 6_000;

it.each([{ how: "ended" }, { how: "frozen" }] as const)(
  "ends by its deadline, or soon after it, when Postgres has $how",
  async ({ how }) => {
    await using postgres = await ownPostgres();
    await prepareForSql(postgres.url, testNatsUrl());
    await using ledger = await BridgeLedger.make(postgres.url);
    await using group = await ServeGroup.start(postgres.url, 2, ["--stop-deadline-ms", `${stopDeadlineMs}`]);
    const { subjects } = ledger;
    await using publisher = await BridgePublisher.open({ natsUrl: testNatsUrl(), subjects, perSecond });
    await ledger.isLive(() => publisher.probe());
    publisher.begin();
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
    // What the test leaves behind is removed there.
    if (how === "ended") await postgres.start();
    else postgres.resume();
    console.log(`stopped while Postgres had ${how}, deadline ${stopDeadlineMs} ms: ${JSON.stringify(found)}`);
    expect(found.map(({ status }) => status)).toEqual([0, 0]);
    expect(Math.max(...found.map(({ afterMs }) => afterMs))).toBeLessThan(stopDeadlineMs + slackMs);
  },
  patienceMs,
);
