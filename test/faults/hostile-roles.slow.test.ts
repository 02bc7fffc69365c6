/**
 * As `hostile-objects.slow.test.ts`, and what costs more: sixteen attackers side by side, while the waits of others are compared with those under
 * a load that is no attack.
 */
import type pg from "pg";
import { describe, expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { attack, callsOf, statementMs } from "./support/hostile/attack.js";
import { secretsOf } from "./support/hostile/audit.js";
import { Canary, ways } from "./support/hostile/canary.js";
import { type AttackerRole, attackerRoles, functionsOf } from "./support/hostile/catalog.js";
import { HostileWorld } from "./support/hostile/world.js";

/** Random seed, which makes a run repeatable. */
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);
const timeout = 1_800_000;
const attackers = 16;
const callsPerAttacker = 400;
/** Margin on the longest wait beside a harmless load, in milliseconds. */
const allowedMs = 1_000;

async function sessionsOf(world: HostileWorld, role: AttackerRole, count: number): Promise<pg.Client[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => world.session(world.attackers.get(role)!)));
  for (const client of clients) await client.query(`SET statement_timeout = ${statementMs}`);
  return clients;
}

describe("a hostile role", () => {
  it(`keeps nobody waiting longer than a load that is no attack, ${attackers} at a time`, { timeout }, async () => {
    await using world = await HostileWorld.open();
    const functions = await functionsOf(world.operator, world.logins);
    const ids = await world.victimIds();
    const secrets = await secretsOf(world);
    const random = new Random(seed);
    const all = await Promise.all(
      Array.from({ length: attackers }, async (_, nth) => {
        const role = attackerRoles[nth % attackerRoles.length]!;
        const calls = functions.flatMap((each) => callsOf(each, { role, ids, random, valuesPerArgument: 4, pairs: 4 }));
        const chosen = Array.from({ length: callsPerAttacker }, () => random.pick(calls));
        return { role, chosen, clients: await sessionsOf(world, role, 1) };
      }),
    );

    const attacked = await Canary.start(world, "attacked");
    const processes = await world.processes();
    const begunAt = performance.now();
    const findings = await Promise.all(all.map(({ role, chosen, clients }) => attack(clients, role, chosen, secrets)));
    const tookMs = performance.now() - begunAt;
    expect(findings.flatMap(({ wrong }) => wrong)).toEqual([]);
    // Before the waits: a process that has ended is why a message has not come.
    expect(await world.processes()).toEqual(processes);
    const waits = await attacked.end();

    const control = await Canary.start(world, "control");
    const endsAt = performance.now() + tookMs;
    const burn = async (client: pg.Client): Promise<void> => {
      while (performance.now() < endsAt) await client.query("SELECT count(*) FROM generate_series(1, 100000)");
    };
    await Promise.all(all.map(({ clients }) => burn(clients[0]!)));
    const controlWaits = await control.end();
    for (const way of ways) {
      const wait = waits.get(way) ?? 0;
      const controlWait = controlWaits.get(way) ?? 0;
      console.info(`${way}: ${Math.round(wait)} ms at most, beside the load ${Math.round(controlWait)} ms`);
      expect(wait, `${way}: the longest wait in milliseconds`).toBeLessThan(controlWait + allowedMs);
    }
  });
});
