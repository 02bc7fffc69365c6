/**
 * A mesh of two senders and two listeners in which anything is killed: first each kind by itself, then at any time, several
 * at once, and one while another has not come back yet. Now and then one stands still for a moment. HAWSER_FAULT_SEED repeats
 * the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { audit, faultsOf, noFaults, summaryOf } from "./support/audit.js";
import { endSessionsSql, faultSeed, killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { Mesh } from "./support/mesh.js";
import { effectsTable, microseconds } from "./support/mesh-protocol.js";
import { type OwnPostgres, ownPostgres } from "./support/own-postgres.js";

const kills = killsPerLoop(1);

const restart = async (postgres: OwnPostgres, signal: "SIGKILL" | "SIGQUIT", awayMs = 0): Promise<number> => {
  await postgres.kill(signal);
  await delay(awayMs);
  await postgres.start();
  return microseconds();
};

it(`nothing confirmed is lost when anything is killed at any time (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using mesh = await Mesh.start({ url: postgres.url });
  const made: Record<string, number> = {};
  /** Each resolves with when it ended, as far as it goes. */
  const killing: Record<string, () => Promise<number>> = {
    sender: () => mesh.replace(random.pick(mesh.senders)),
    sessions: () =>
      onServer(postgres.url, endSessionsSql).then(
        () => microseconds(),
        // Postgres may be away just now.
        () => microseconds(),
      ),
    listener: () => mesh.replace(random.pick(mesh.listeners)),
    Postgres: () => restart(postgres, random.chance(0.8) ? "SIGKILL" : "SIGQUIT", random.between(0, 500)),
  };
  /** Not a kill, but it makes others late. */
  const stall = async (): Promise<number> => {
    const peer = random.chance(0.7) ? mesh.current(random.pick(mesh.members)) : undefined;
    if (peer === undefined) postgres.freeze();
    else if (peer.isRunning) peer.kill("SIGSTOP");
    await delay(random.between(0, 1_500));
    if (peer === undefined) postgres.resume();
    else if (peer.isRunning) peer.kill("SIGCONT");
    return microseconds();
  };
  const faults: Record<string, () => Promise<number>> = { ...killing, stall };
  const killed = (): number => Object.keys(killing).reduce((sum, kind) => sum + (made[kind] ?? 0), 0);
  const alone = Object.keys(killing);
  const recoveries: number[] = [];
  while (killed() < kills) {
    // In the middle of much, every other time; and after another number of messages each time.
    if (random.chance(0.5)) await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 250)));
    const next = alone.shift();
    if (next === undefined) await delay(random.between(0, 300));
    else await mesh.progress(random.pick(mesh.listeners), random.between(1, 97));
    const some = Array.from({ length: random.between(1, 3) }, () => random.pick(Object.keys(faults)));
    const kinds = new Set(next === undefined ? some : [next]);
    for (const kind of kinds) made[kind] = (made[kind] ?? 0) + 1;
    const ends = await Promise.all(
      [...kinds].map(async (kind) => {
        await delay(random.between(0, 100));
        return await faults[kind]!();
      }),
    );
    if (next !== undefined || killed() >= kills || random.chance(0.7)) {
      recoveries.push(await mesh.recovered(Math.max(...ends)));
    }
    // Who takes messages remembers what it has begun, whatever becomes of senders and sessions.
    if (next === "sender") expect(audit(mesh).repeated).toBe(0);
  }
  await mesh.settle();
  const found = audit(mesh);
  console.log(`seed ${faultSeed}, ${JSON.stringify(made)}: ${summaryOf(found)}; back after: ${spread(recoveries)}`);
  expect(faultsOf(found)).toEqual(noFaults);
  expect(found.unknown).toBe(0);
  expect(mesh.cursors.count).toBeGreaterThan(mesh.channels.length * kills);
});

/** At least one of each sort. */
const transactionalKills = Math.max(4, killsPerLoop(5));

interface Effect {
  readonly listener: string;
  readonly sender: string;
  readonly run: number;
  readonly number: number;
}

const keyOf = ({ listener, sender, run, number }: Effect): string => `${sender} ${run} ${number} ${listener}`;

it("transactional handlers have their effects exactly once, however often they were started", {
  timeout: loopTimeoutMs(transactionalKills),
}, async () => {
  await using postgres = await ownPostgres();
  await onServer(postgres.url, effectsTable);
  await using mesh = await Mesh.start({
    url: postgres.url,
    handler: "effect",
    // A commit for each: slow disks are to keep up.
    perSecond: 5,
  });
  const recoveries: number[] = [];
  for (let kill = 0; kill < transactionalKills; kill++) {
    await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 25)));
    const listener = mesh.listeners[kill % 2]!;
    await mesh.progress(listener, 1 + ((kill * 29) % 47));
    // In turn: a listener, Postgres, a sender, and a listener together with Postgres.
    const faults = [
      () => [mesh.replace(listener)],
      () => [restart(postgres, "SIGKILL")],
      () => [mesh.replace(mesh.senders[kill % 2]!)],
      () => [restart(postgres, "SIGKILL"), mesh.replace(listener)],
    ];
    const ends = await Promise.all(faults[kill % 4]!());
    recoveries.push(await mesh.resumed(Math.max(...ends)));
  }
  await mesh.settle(60_000);
  const found = audit(mesh);
  let effects: Effect[] = [];
  let missing: string[] = [];
  // A handler that was begun may be about to commit.
  await eventually("each confirmed message has its effect", async () => {
    effects = (await rowsOf(postgres.url, "SELECT listener, sender, run, number FROM effects ORDER BY id")) as never;
    const there = new Set(effects.map(keyOf));
    missing = mesh.channels.flatMap(({ sender, listener }) =>
      mesh
        .confirmed(sender, listener)
        .map(({ run, number }) => keyOf({ listener: listener.name, sender: sender.name, run, number }))
        .filter((key) => !there.has(key)),
    );
    return missing.length === 0;
  }).catch(() => undefined);
  const keys = effects.map(keyOf);
  console.log(
    `transactional, ${transactionalKills} faults: ${effects.length} effects, ${missing.length} missing; ` +
      `${summaryOf(found)}; back after: ${spread(recoveries)}`,
  );
  expect(keys.filter((key, index) => keys.indexOf(key) !== index)).toEqual([]);
  expect(missing).toEqual([]);
  expect(faultsOf(found)).toEqual(noFaults);
  // Rows of the table are in the order of sending, too.
  for (const { sender, listener } of mesh.channels) {
    const places = effects
      .filter((row) => row.sender === sender.name && row.listener === listener.name)
      .map(({ run, number }) => [run, number] as const);
    expect(places).toEqual([...places].sort(([run1, one], [run2, other]) => run1 - run2 || one - other));
  }
});
