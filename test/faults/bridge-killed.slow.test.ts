/**
 * Three `hawser serve` run subscriptions of several roles, and the one that leads, Postgres or nats-server is killed, again
 * and again, under numbered messages. HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { faultsOf, nothingWrong } from "./support/bridge-audit.js";
import type { Stretch } from "./support/bridge-publisher.js";
import { BridgeRun } from "./support/bridge-run.js";
import { faultSeed, killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { natsMonitor } from "./support/nats-monitor.js";
import { ownPostgres } from "./support/own-postgres.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";

const kills = killsPerLoop(5);

it(`no message is lost, and two never lead, when the leader or Postgres is killed (HAWSER_FAULT_SEED=${faultSeed})`, {
  // A takeover alone takes some five seconds.
  timeout: loopTimeoutMs(4 * kills),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  await using run = await BridgeRun.start({ databaseUrl: postgres.url });
  const { ledger, group, publisher } = run;
  const times = { takenOver: [] as number[], complete: [] as number[], back: [] as number[] };
  const killLeader = async (): Promise<void> => {
    const leader = await group.leader();
    const other = random.chance(0.3) ? random.pick(group.others) : undefined;
    const epoch = await ledger.epoch();
    const killedAt = Date.now();
    await Promise.all([leader, other].map((member) => member?.crash()));
    const back = Promise.all([leader, other].map((member) => member?.start()));
    const { first, all } = await ledger.goesOn(killedAt, epoch);
    times.takenOver.push(first);
    times.complete.push(all);
    await back;
    // Only when all that came before they were back is done, each of the three has whatever the leader may not have done.
    for (const member of group.members) await group.receives(member);
    await publisher.more(20);
    await ledger.reaches(publisher.last);
  };
  const killPostgres = async (): Promise<void> => {
    const pids = group.members.map(({ pid }) => pid);
    await postgres.kill(random.chance(0.7) ? "SIGKILL" : "SIGQUIT");
    // Away for a moment, or for longer than the others wait for a leader that says nothing.
    await delay(random.chance(0.7) ? random.between(0, 500) : random.between(4_000, 6_000));
    await postgres.start();
    times.back.push((await ledger.goesOn(Date.now(), 0n)).all);
    expect(group.members.map(({ pid, isRunning }) => isRunning && pid)).toEqual(pids);
  };
  for (let round = 0; round < kills; round++) {
    for (const kill of [killLeader, killPostgres]) {
      await publisher.more(random.between(300, 1_500));
      // Batches are small when little arrives, and large when much does.
      if (random.chance(0.5)) publisher.pace(random.pick([100, 1_000, 2_000]));
      await kill();
    }
  }
  const findings = await run.finish();
  console.log(
    `the leader and Postgres killed ${kills} times each: ${findings.summary}; taken over after: ` +
      `${spread(times.takenOver)}; all lanes after: ${spread(times.complete)}; after Postgres: ${spread(times.back)}`,
  );
  expect(faultsOf(findings)).toEqual(nothingWrong);
  expect(findings.epochs).toBeGreaterThan(kills);
  expect(publisher.unheard.size).toBe(0);
});

/*
 * Core NATS keeps nothing: what is published while nobody is subscribed is lost. The publisher hears from the server of each
 * message for which it had no subscriber. With one process a message may be missing only if it is one of these, or was under
 * way when the server died (see `BridgePublisher`). With three, those that wait may be subscribed again a moment before the
 * one that leads: so what was published before all three are there may come out of order, handed over by one of these, or be
 * missing besides.
 */
it.each([{ processes: 1 }, { processes: 3 }])(
  `only what nobody was subscribed for is lost when NATS is killed, with $processes processes (HAWSER_FAULT_SEED=${faultSeed})`,
  async ({ processes }) => {
    const random = new Random(faultSeed + processes);
    const monitor = await natsMonitor();
    await using nats = await startNatsServer({ config: monitor.config });
    await using database = await sqlDatabase(nats.url);
    await using run = await BridgeRun.start({ databaseUrl: database.url, natsUrl: nats.url, processes });
    const { ledger, group, publisher } = run;
    const pids = group.members.map(({ pid }) => pid);
    const recoveries: number[] = [];
    const partly: Stretch[] = [];
    for (let round = 0; round < kills; round++) {
      await publisher.more(random.between(300, 1_500));
      const first = publisher.last + 1;
      await nats.kill();
      await delay(random.chance(0.5) ? random.between(0, 300) : random.between(1_000, 2_500));
      await nats.restart();
      const back = Date.now();
      if (processes > 1) {
        const all = ledger.lanes.map(({ subject }) => subject);
        await eventually("all of them are subscribed", async () => (await monitor.subscribers(...all)) === processes);
        partly.push({ first, last: publisher.last });
      }
      recoveries.push((await ledger.goesOn(back, 0n)).all);
    }
    const findings = await run.finish();
    const { missingIds } = findings;
    const silent = [...missingIds].filter((id) => !publisher.unheard.has(id));
    const others = silent.filter((id) => !isIn(publisher.underWay, id));
    const unexplained = others.filter((id) => !isIn(partly, id));
    console.log(
      `NATS killed ${kills} times under ${processes} processes: ${findings.summary}; ` +
        `${missingIds.size} messages lost, of which ${publisher.unheard.size} had no subscriber, ` +
        `${silent.length - others.length} were under way to the server, ${others.length - unexplained.length} came when ` +
        `not all processes were subscribed; all lanes go on after: ${spread(recoveries)}`,
    );
    const disordered = findings.disordered.filter((found) => !isIn(partly, Number(/: (\d+) after/.exec(found)?.[1])));
    expect({ ...faultsOf(findings), disordered, missing: unexplained }).toEqual(nothingWrong);
    // And these for certain, as nobody could have received them.
    expect([...publisher.unheard].filter((id) => !missingIds.has(id))).toEqual([]);
    expect(group.members.map(({ pid, isRunning }) => isRunning && pid)).toEqual(pids);
  },
  loopTimeoutMs(kills),
);

function isIn(stretches: readonly Stretch[], id: number): boolean {
  return stretches.some(({ first, last }) => first <= id && id <= last);
}
