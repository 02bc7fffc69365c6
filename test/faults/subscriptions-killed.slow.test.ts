/**
 * Three `hawser serve` run subscriptions of several roles, and the one that leads is killed or told to stop, or Postgres or
 * nats-server is killed, again and again, under numbered messages. HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { faultSeed, killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { numberOf, problems } from "./support/ledger.js";
import { subscribers } from "./support/nats-monitor.js";
import { ownPostgres } from "./support/own-postgres.js";
import type { Stretch } from "./support/publisher.js";
import { prepareForSql, sqlDatabase } from "./support/sql-database.js";
import { restartPostgres, storm } from "./support/storm.js";
import { Subscriptions } from "./support/subscriptions.js";

const kills = killsPerLoop(5);

it(`no message is lost, and two never lead, when the leader is killed or stops, or Postgres is killed (HAWSER_FAULT_SEED=${faultSeed})`, {
  // A takeover alone takes some five seconds.
  timeout: loopTimeoutMs(5 * kills),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await prepareForSql(postgres.url);
  await using run = await Subscriptions.start({ databaseUrl: postgres.url });
  const { ledger, group, publisher } = run;
  const times = { takenOver: [] as number[], stopped: [] as number[], back: [] as number[] };
  /** Resolves when each process has whatever the leader may not have done: all that came before they were back is done. */
  const areBack = async (): Promise<void> => {
    for (const member of group.members) await group.receives(member);
    await publisher.more(20);
    await ledger.reaches(publisher.last);
  };
  const made = await storm({
    ...{ random, count: 3 * kills },
    faults: {
      async leaderKilled() {
        const leader = await group.leader();
        const other = random.chance(0.3) ? random.pick(group.others) : undefined;
        const epoch = await ledger.epoch();
        const killedAt = Date.now();
        await Promise.all([leader, other].map((member) => member?.crash()));
        const back = Promise.all([leader, other].map((member) => member?.start()));
        times.takenOver.push((await ledger.goesOn(killedAt, epoch)).all);
        await back;
        await areBack();
      },
      async leaderStops() {
        const leader = await group.leader();
        const epoch = await ledger.epoch();
        const stoppedAt = Date.now();
        const stopped = leader.stop();
        times.stopped.push((await ledger.goesOn(stoppedAt, epoch)).all);
        await stopped;
        await leader.start();
        await areBack();
      },
      async postgresKilled() {
        const pids = group.members.map(({ pid }) => pid);
        // Away for a moment, or for longer than the others wait for a leader that says nothing.
        const awayMs = random.chance(0.7) ? random.between(0, 500) : random.between(4_000, 6_000);
        await restartPostgres(postgres, random.chance(0.7) ? "SIGKILL" : "SIGQUIT", awayMs);
        times.back.push((await ledger.goesOn(Date.now())).all);
        expect(group.members.map(({ pid, isRunning }) => isRunning && pid)).toEqual(pids);
      },
    },
    async progress() {
      // Batches are small when little arrives, and large when much does.
      if (random.chance(0.5)) publisher.pace(random.pick([100, 1_000, 2_000]));
      await publisher.more(random.between(300, 1_500));
    },
  });
  const found = await run.finish();
  console.log(
    `${JSON.stringify(made)}: ${found.summary}; all lanes taken over after: ${spread(times.takenOver)}; after a stop: ` +
      `${spread(times.stopped)}; after Postgres: ${spread(times.back)}`,
  );
  expect(problems(found.findings)).toEqual([]);
  expect(found.epochs).toBeGreaterThan(2 * kills);
  expect(publisher.unheard.size).toBe(0);
});

/*
 * Core NATS keeps nothing: what is published while nobody is subscribed is lost. The publisher hears from the server of each
 * message for which it had no subscriber. With one process a message may be missing only if it is one of these, or was under
 * way when the server died (see `Publisher`). With three, those that wait may be subscribed again a moment before the one that
 * leads: so what was published before all three are there may come out of order, handed over by one of these, or be missing
 * besides.
 */
it.each([{ processes: 1 }, { processes: 3 }])(
  `only what nobody was subscribed for is lost when NATS is killed, with $processes processes (HAWSER_FAULT_SEED=${faultSeed})`,
  async ({ processes }) => {
    const random = new Random(faultSeed + processes);
    await using nats = await startNatsServer({ monitor: true });
    await using database = await sqlDatabase(nats.url);
    await using run = await Subscriptions.start({ databaseUrl: database.url, natsUrl: nats.url, processes });
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
        await eventually("all of them are subscribed", async () => (await subscribers(nats, ...all)) === processes);
        partly.push({ first, last: publisher.last });
      }
      recoveries.push((await ledger.goesOn(back)).all);
    }
    const { findings, summary } = await run.finish();
    const lost = new Set(findings.lost.map(numberOf));
    const silent = [...lost].filter((id) => !publisher.unheard.has(id));
    const others = silent.filter((id) => !isIn(publisher.underWay, id));
    const unexplained = others.filter((id) => !isIn(partly, id));
    console.log(
      `NATS killed ${kills} times under ${processes} processes: ${summary}; ${lost.size} messages lost, of which ` +
        `${publisher.unheard.size} had no subscriber, ${silent.length - others.length} were under way to the server, ` +
        `${others.length - unexplained.length} came when not all processes were subscribed; all lanes go on after: ` +
        spread(recoveries),
    );
    const late = findings.late.filter((finding) => !isIn(partly, numberOf(finding)));
    expect(problems({ ...findings, late, lost: unexplained.map(String) })).toEqual([]);
    // And these for certain, as nobody could have received them.
    expect([...publisher.unheard].filter((id) => !lost.has(id))).toEqual([]);
    expect(group.members.map(({ pid, isRunning }) => isRunning && pid)).toEqual(pids);
  },
  loopTimeoutMs(kills),
);

function isIn(stretches: readonly Stretch[], id: number): boolean {
  return stretches.some(({ first, last }) => first <= id && id <= last);
}
