/**
 * A hostile pass over every SQL object: each role calls each function, and writes to each table, with hostile arguments, while
 * messages of others flow. The functions, roles and arguments come from the catalogs, the limits from the spec, so that a new
 * function is attacked, too; `support/hostile/catalog.ts` says who may call what.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { atDepth } from "../support/depth.js";
import { attack, type Call, type CallOptions, callsOf, statementMs, writesOf } from "./support/hostile/attack.js";
import { changed, possessions, secretsOf } from "./support/hostile/audit.js";
import { Canary } from "./support/hostile/canary.js";
import { attackerRoles, columnsOf, functionsOf, objectsOf, surprises } from "./support/hostile/catalog.js";
import { HostileWorld, victimMarker } from "./support/hostile/world.js";

/** Random seed, which makes a run repeatable. */
const seed = Number(process.env["HAWSER_FAULT_SEED"] ?? 1);
/** Hostile values of each argument; at full depth all of them. */
const valuesPerArgument = atDepth(20) < 20 ? atDepth(20) : undefined;
/** Sessions of one attacker side by side. */
const sessions = 3;

describe("a hostile role", () => {
  let world: HostileWorld;
  let canary: Canary;
  beforeAll(async () => {
    world = await HostileWorld.open();
    canary = await Canary.start(world, "fast");
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
  });

  it("finds no object whose users nobody has decided on", async () => {
    const functions = await functionsOf(world.operator, world.logins);
    expect(functions.length).toBeGreaterThan(150);
    expect(surprises(functions, await objectsOf(world.operator, world.logins))).toEqual([]);
  });

  it.each(attackerRoles)(
    "%s gains nothing by any function or table, and ends nothing",
    { timeout: 900_000 },
    async (role) => {
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
    },
  );

  it("has held up nobody: each message of others arrived, once, and nothing else was published for them", async () => {
    await canary.end();
    const copies = world.published.filter(({ text }) => text === `${victimMarker}-for-nats`);
    expect(copies).toEqual([{ subject: "victim.out", text: `${victimMarker}-for-nats` }]);
  });
});
