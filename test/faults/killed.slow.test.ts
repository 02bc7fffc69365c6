/**
 * A mesh of two senders and two listeners in which anything is killed: a sender first, then each kind in turn, and several at once,
 * also while another has not come back yet. Now and then one stands still for a moment. HAWSER_FAULT_SEED repeats the choices of a
 * run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { onServer } from "../support/on-server.js";
import { endSessionsSql, faultSeed, killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";
import { restartPostgres, storm } from "./support/storm.js";

const kills = killsPerLoop(1);

it(`nothing confirmed is lost when anything is killed at any time (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: loopTimeoutMs(kills),
}, async () => {
  const random = new Random(faultSeed);
  await using postgres = await ownPostgres();
  await using mesh = await Mesh.start({ url: postgres.url });
  await mesh.progress(random.pick(mesh.listeners), random.between(1, 97));
  await mesh.recovered(await mesh.replace(random.pick(mesh.senders)));
  // Who takes messages remembers what it has begun, whatever becomes of senders.
  expect(auditMesh(mesh).repeated).toBe(0);

  /** Each resolves with when it ended, as far as it goes. */
  const alone: Readonly<Record<string, () => Promise<number>>> = {
    sender: () => mesh.replace(random.pick(mesh.senders)),
    listener: () => mesh.replace(random.pick(mesh.listeners)),
    async sessions() {
      // Postgres may be away just now.
      await onServer(postgres.url, endSessionsSql).catch(() => undefined);
      return microseconds();
    },
    async Postgres() {
      await restartPostgres(postgres, random.chance(0.8) ? "SIGKILL" : "SIGQUIT", random.between(0, 500));
      return microseconds();
    },
    async standstill() {
      const peer = random.chance(0.7) ? mesh.current(random.pick(mesh.members)) : undefined;
      if (peer === undefined) postgres.freeze();
      else if (peer.isRunning) peer.kill("SIGSTOP");
      await delay(random.between(0, 1_500));
      if (peer === undefined) postgres.resume();
      else if (peer.isRunning) peer.kill("SIGCONT");
      return microseconds();
    },
  };
  const several = async (): Promise<number> => {
    const kinds = new Set(Array.from({ length: 3 }, () => random.pick(Object.keys(alone))));
    const ends = [...kinds].map(async (kind) => {
      await delay(random.between(0, 100));
      return await alone[kind]!();
    });
    return Math.max(...(await Promise.all(ends)));
  };
  const recoveries: number[] = [];
  const goesOn = async (end: number): Promise<void> => {
    if (random.chance(0.7)) recoveries.push(await mesh.recovered(end));
  };
  const faults = Object.entries({ ...alone, several }).map(
    ([kind, fault]) => [kind, async () => goesOn(await fault())] as const,
  );
  await storm({
    ...{ random, count: kills, faults: Object.fromEntries(faults) },
    async progress() {
      // In the middle of much, every other time.
      if (random.chance(0.5)) await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 250)));
      await delay(random.between(0, 300));
    },
  });
  recoveries.push(await mesh.recovered(microseconds()));
  await mesh.settle();
  const found = auditMesh(mesh);
  console.log(`seed ${faultSeed}: ${found.summary}; back after: ${spread(recoveries)}`);
  expect(problems(found.findings)).toEqual([]);
  expect(found.unknown).toBe(0);
  expect(mesh.cursors.count).toBeGreaterThan(mesh.channels.length * kills);
});
