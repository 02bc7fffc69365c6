/**
 * A long loop in which anything may be killed at any time: listeners, senders, Postgres and its sessions, one after
 * another, at once, and one while another has not come back yet. Now and then one stands still for a moment.
 * HAWSER_FAULT_SEED repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { onServer } from "../support/on-server.js";
import { audit, faultsOf, noFaults, summaryOf } from "./support/audit.js";
import { killsPerLoop, loopTimeoutMs, spread } from "./support/kills.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";

const kills = killsPerLoop(5);
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);

it(
  `loses nothing confirmed when anything is killed at any time (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    const random = new Random(seed);
    await using postgres = await ownPostgres();
    await using mesh = await Mesh.start({ url: postgres.url });
    const endAll = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`;
    const made: Record<string, number> = {};
    const note = (what: string): void => {
      made[what] = (made[what] ?? 0) + 1;
    };
    const killed = (): number => Object.values(made).reduce((sum, each) => sum + each, 0) - (made["stalled"] ?? 0);
    /** Each resolves with when it ended, as far as it goes. */
    const faults: Record<string, () => Promise<number>> = {
      listener() {
        note("listener");
        return mesh.replace(random.pick(mesh.listeners));
      },
      sender() {
        note("sender");
        return mesh.replace(random.pick(mesh.senders));
      },
      async Postgres() {
        note("Postgres");
        await postgres.kill(random.chance(0.8) ? "SIGKILL" : "SIGQUIT");
        await delay(random.between(0, 500));
        await postgres.start();
        return microseconds();
      },
      async sessions() {
        // Postgres may be away just now.
        await onServer(postgres.url, endAll).then(
          () => note("sessions"),
          () => undefined,
        );
        return microseconds();
      },
      /** Not a kill, but it makes others late. */
      async stall() {
        note("stalled");
        const peer = random.chance(0.7) ? mesh.current(random.pick(mesh.members)) : undefined;
        if (peer === undefined) postgres.freeze();
        else if (peer.isRunning) peer.kill("SIGSTOP");
        await delay(random.between(0, 1_500));
        if (peer === undefined) postgres.resume();
        else if (peer.isRunning) peer.kill("SIGCONT");
        return microseconds();
      },
    };
    const recoveries: number[] = [];
    while (killed() < kills) {
      if (random.chance(0.5)) await Promise.all(mesh.senders.map((sender) => mesh.current(sender).call("hurry", 150)));
      await delay(random.between(0, 300));
      const kinds = new Set(Array.from({ length: random.between(1, 3) }, () => random.pick(Object.keys(faults))));
      const ends = await Promise.all(
        [...kinds].map(async (kind) => {
          await delay(random.between(0, 100));
          return await (faults[kind] as () => Promise<number>)();
        }),
      );
      if (killed() >= kills || random.chance(0.7)) recoveries.push(await mesh.recovered(Math.max(...ends)));
    }
    await mesh.settle();
    const found = audit(mesh);
    console.log(`seed ${seed}, faults ${JSON.stringify(made)}: ${summaryOf(found)}; back after: ${spread(recoveries)}`);
    expect(faultsOf(found)).toEqual(noFaults);
    expect(Math.max(...recoveries)).toBeLessThan(recoveryLimitMs);
    expect(found.unknown).toBe(0);
  },
  loopTimeoutMs(kills),
);
