/**
 * Loops of kills under a mesh of two senders and two listeners: one kind of process at a time. HAWSER_FAULT_KILLS sets
 * how many kills there are over all five loops, the one at random included.
 */
import { expect, it, onTestFinished } from "vitest";
import { testDatabase } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { audit, faultsOf, noFaults, summaryOf } from "./support/audit.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

const kills = killsPerLoop(5);

/** Makes faults, waiting after each until delivery is back; then lets the mesh drain and looks at everything. */
async function loop(what: string, mesh: Mesh, fault: (round: number) => Promise<number>): Promise<void> {
  const recoveries: number[] = [];
  for (let round = 0; round < kills; round++) {
    // In the middle of much, every other time; and after another number of messages each time.
    if (round % 2 === 1) await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 250)));
    await someMore(mesh, 1 + ((round * 53) % 97));
    recoveries.push(await mesh.recovered(await fault(round)));
  }
  await mesh.settle();
  const found = audit(mesh);
  console.log(`${kills} times ${what}: ${summaryOf(found)}; back after: ${spread(recoveries)}`);
  expect(faultsOf(found)).toEqual(noFaults);
  expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
  expect(found.unknown).toBe(0);
  expect(mesh.cursors.count).toBeGreaterThan(mesh.channels.length * kills);
}

/** Waits until each listener has begun that many more. */
async function someMore(mesh: Mesh, count: number): Promise<void> {
  await Promise.all(mesh.listeners.map((listener) => mesh.progress(listener, count)));
}

it(
  "loses nothing confirmed when listeners are killed",
  async () => {
    const database = await testDatabase();
    onTestFinished(() => database.drop());
    await using mesh = await Mesh.start({ url: database.url });
    await loop("a listener killed", mesh, (round) => mesh.replace(mesh.listeners[round % 2]!));
  },
  loopTimeoutMs(kills),
);

it(
  "loses nothing confirmed when senders are killed",
  async () => {
    const database = await testDatabase();
    onTestFinished(() => database.drop());
    await using mesh = await Mesh.start({ url: database.url });
    await loop("a sender killed", mesh, (round) => mesh.replace(mesh.senders[round % 2]!));
  },
  loopTimeoutMs(kills),
);

it(
  "loses nothing confirmed when Postgres is killed",
  async () => {
    await using postgres = await ownPostgres();
    await using mesh = await Mesh.start({ url: postgres.url });
    await loop("Postgres killed", mesh, async (round) => {
      await postgres.kill(round % 3 === 1 ? "SIGQUIT" : "SIGKILL");
      await postgres.start();
      return microseconds();
    });
  },
  loopTimeoutMs(kills),
);

it(
  "loses nothing confirmed when all sessions of Postgres are ended",
  async () => {
    const database = await testDatabase();
    onTestFinished(() => database.drop());
    await using mesh = await Mesh.start({ url: database.url });
    const endAll = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()`;
    await loop("all sessions ended", mesh, async () => {
      await onServer(database.url, endAll);
      return microseconds();
    });
  },
  loopTimeoutMs(kills),
);
