/**
 * A hostile pass over every SQL object: a role calls each function, and writes to each table, with hostile arguments. The
 * functions, roles and arguments come from the catalogs, the limits from the spec, so that a new function is attacked, too.
 */
import { expect } from "vitest";
import { Random } from "../../../simulator/random.js";
import { atDepth } from "../../../support/depth.js";
import { attack, type Call, type CallOptions, callsOf, statementMs, writesOf } from "./attack.js";
import { changed, possessions, secretsOf } from "./audit.js";
import type { Canary } from "./canary.js";
import { type AttackerRole, columnsOf, functionsOf, objectsOf } from "./catalog.js";
import { type HostileWorld, victimMarker } from "./world.js";

/** Random seed, which makes a run repeatable. */
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);
/** Hostile values of each argument; at full depth all of them. */
const valuesPerArgument = atDepth(20) < 20 ? atDepth(20) : undefined;
/** Sessions of one attacker side by side. */
const sessions = 3;

/** Makes the pass. */
export async function expectNoGain(world: HostileWorld, role: AttackerRole): Promise<void> {
  const random = new Random(seed);
  const attacker = world.attackers.get(role)!;
  const options: CallOptions = {
    role,
    ids: await world.victimIds(),
    random,
    valuesPerArgument,
    pairs: atDepth(20),
  };
  const functions = await functionsOf(world.operator, world.logins);
  const calls: Call[] = functions.flatMap((each) => callsOf(each, options));
  for (const object of await objectsOf(world.operator, world.logins)) {
    if (object.kind !== "relation") continue;
    calls.push(...writesOf(object, await columnsOf(world.operator, object.name), options));
  }
  const secrets = await secretsOf(world);
  const before = await possessions(world);
  const processes = await world.processes();
  const clients = await Promise.all(Array.from({ length: sessions }, () => world.session(attacker)));
  for (const client of clients) await client.query(`SET statement_timeout = ${statementMs}`);
  const published = world.published.length;
  const findings = await attack(clients, role, calls, secrets);
  expect(findings.wrong).toEqual([]);
  expect(changed(role, before, await possessions(world))).toEqual([]);
  expect(await world.processes()).toEqual(processes);
  // Its own functions have run as itself, and nobody else may publish to NATS.
  expect(
    await world.column(`SELECT DISTINCT "user" FROM attack_${role}.calls WHERE "user" <> '${attacker.name}'`),
  ).toEqual([]);
  if (role !== "hawser_nats") expect(world.published.slice(published)).toEqual([]);
}

/** Ends the messages of others: each has arrived, once, and nothing else was published for them. */
export async function expectNobodyHeldUp(world: HostileWorld, canary: Canary): Promise<void> {
  await canary.end();
  const copies = world.published.filter(({ text }) => text === `${victimMarker}-for-nats`);
  expect(copies).toEqual([{ subject: "victim.out", text: `${victimMarker}-for-nats` }]);
}
