/**
 * Calls that are interrupted at random: by statement_timeout, a cancel, the end of their session, and a client that goes
 * away. HAWSER_FAULT_KILLS=500 makes 10,000 of that.
 */
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Msg } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { Random } from "../simulator/random.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { killsPerLoop, loopTimeoutMs, faultSeed as seed } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { auditSql } from "./support/sql-audit.js";
import { patientLimits, SqlLoad } from "./support/sql-load.js";
import { payloadOf, tokenOf } from "./support/sql-token.js";
import { SqlWitness } from "./support/sql-witness.js";

const kills = killsPerLoop(1);
const interruptions = kills * 20;
const victims = 10;
const survivors = 10;
/** Number of the first victim, beyond those of the load's sessions. */
const firstVictim = 1_000;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

const ways = ["timeout", "cancel", "terminate", "destroy"] as const;
type Way = (typeof ways)[number];

it(
  `calls that are interrupted leave nothing behind in the gateway, and give no other call their answer (HAWSER_FAULT_SEED=${seed})`,
  async () => {
    await using gateway = await testGateway({
      serverOptions: { capacity: `${victims + survivors}` },
      callTimeoutMs: patientLimits.callTimeoutMs,
    });
    await interrupt(gateway, interruptions / 10, seed);
    const before = { held: await steadilyHeld(), heapMb: heapMb() };
    await interrupt(gateway, interruptions, seed + 1);
    const after = { held: await heldAtMost(before.held), heapMb: heapMb() };
    console.log(
      `after ${interruptions / 10} interruptions and ${interruptions} more: ${JSON.stringify(before)}, ` +
        JSON.stringify(after),
    );
    expect(excessOf(after.held, before.held)).toEqual([]);
    expect(after.heapMb - before.heapMb).toBeLessThan(8);
    await expectWholeCapacity(gateway);
  },
  loopTimeoutMs(kills),
);

/** Interrupts so many calls, beside sessions that nobody interrupts. */
async function interrupt(gateway: TestGateway, count: number, phaseSeed: number): Promise<void> {
  const databaseUrl = gateway.database.url;
  await using witness = await SqlWitness.open(testNatsUrl());
  const wrong: string[] = [];
  const outcomes: Record<string, number> = {};
  let left = count;
  const victim = async (session: number): Promise<void> => {
    const random = new Random(phaseSeed * 1_000 + session);
    let client = await connected(databaseUrl);
    const control = await connected(databaseUrl);
    for (let number = 0; left-- > 0; number += 2) {
      const way = random.pick(ways);
      if (way === "timeout") await client.query(`SET statement_timeout = ${random.between(1, 12)}`);
      const interrupted = request(client, witness, tokenOf(session, number));
      await interruptBy(way, random, control, client);
      const outcome = await interrupted;
      outcomes[`${way} ${outcome}`] = (outcomes[`${way} ${outcome}`] ?? 0) + 1;
      if (way === "terminate" || way === "destroy") {
        await client.end().catch(() => undefined);
        client = await connected(databaseUrl);
      } else if (way === "timeout") {
        // The limit holds for this statement, too.
        const reset = () =>
          client.query("RESET statement_timeout").then(
            () => true,
            () => false,
          );
        await eventually("there is no time limit any more", reset);
      }
      const next = await request(client, witness, tokenOf(session, number + 1));
      if (next !== "ok") wrong.push(`the call after ${way}: ${next}`);
      if (outcome.startsWith("wrong")) wrong.push(`${way}: ${outcome}`);
    }
    await Promise.all([client.end(), control.end()]);
  };
  {
    await using load = await SqlLoad.start({
      ...{ databaseUrl, witness, sessions: survivors, seed: phaseSeed },
      ...patientLimits,
    });
    await Promise.all(Array.from({ length: victims }, (_, index) => victim(firstVictim + index)));
    await load.more(50);
    await load.stop();
    // The gateway's sessions of the victims end with them.
    await eventually("only the sessions of the others are left", () => gateway.serve.sessionCount === survivors);
    const found = await auditSql(load);
    console.log(`${count} calls interrupted: ${JSON.stringify(outcomes)}; beside them ${found.summary}`);
    expect(wrong).toEqual([]);
    expect(problems(found.findings)).toEqual([]);
    expect(found.summary).toContain("errors: none");
    expect(found.coreLost).toBe(0);
  }
  await eventually("no session is left", () => gateway.serve.sessionCount === 0);
}

async function interruptBy(way: Way, random: Random, control: pg.Client, client: pg.Client): Promise<void> {
  if (way === "timeout") return;
  const { processID } = client as pg.Client & { readonly processID: number };
  await delay(random.between(0, 12));
  if (way === "cancel") await control.query("SELECT pg_cancel_backend($1)", [processID]);
  if (way === "terminate") await control.query("SELECT pg_terminate_backend($1)", [processID]);
  if (way === "destroy")
    (client as pg.Client & { readonly connection: { stream: Socket } }).connection.stream.destroy();
}

/** Asks the responder. @returns "ok", what is wrong with the answer, an SQLSTATE, or "gone" for a session that has ended */
async function request(client: pg.Client, witness: SqlWitness, token: string): Promise<string> {
  const call = "SELECT convert_from(nats_request_text($1, $2, $3), 'UTF8') AS answer";
  try {
    const values = [witness.echo, payloadOf(token), patientLimits.requestTimeoutMs];
    const { rows } = await client.query<{ answer: string }>(call, values);
    const { answer } = rows[0]!;
    return answer === `echo/${payloadOf(token)}` ? "ok" : `wrong: ${answer.slice(0, 80)} instead of ${token}`;
  } catch (error) {
    return error instanceof pg.DatabaseError ? (error.code ?? "") : "gone";
  }
}

async function connected(databaseUrl: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** Sockets, timers and the like of this process, in which the gateway runs: how many of each. */
type Held = Readonly<Record<string, number>>;

function held(): Held {
  const found: Record<string, number> = {};
  for (const name of process.getActiveResourcesInfo().sort()) found[name] = (found[name] ?? 0) + 1;
  return found;
}

/**
 * Objects that the process holds most of the time while no call is in flight. At first sockets are closing and timers of
 * nats.js are about to end; now and then the gateway queries Postgres.
 */
async function steadilyHeld(): Promise<Held> {
  const looks: string[] = [];
  let steady = "";
  await eventually("it holds the same for most of the time", () => {
    looks.push(JSON.stringify(held()));
    const last = looks.slice(-lookCount);
    steady = last.at(-1)!;
    return last.length === lookCount && last.filter((look) => look === steady).length > lookCount / 2;
  });
  return JSON.parse(steady) as Held;
}

const lookCount = 100;

/** Objects held as soon as they do not exceed `limit`, or after a timeout: leaked ones remain. */
async function heldAtMost(limit: Held): Promise<Held> {
  let now = held();
  const isWithin = (): boolean => {
    now = held();
    return excessOf(now, limit).length === 0;
  };
  await eventually("it holds no more than before", isWithin).catch(() => undefined);
  return now;
}

function excessOf(now: Held, limit: Held): [name: string, count: number][] {
  return Object.entries(now).filter(([name, count]) => count > (limit[name] ?? 0));
}

function heapMb(): number {
  collectGarbage();
  return Math.round(process.memoryUsage().heapUsed / 1024 / 1024);
}

/** Expects as many concurrent requests as `capacity` allows: interrupted ones have released their places. */
async function expectWholeCapacity(gateway: TestGateway): Promise<void> {
  const clients = await Promise.all(Array.from({ length: victims + survivors }, () => gateway.connect()));
  const waiting: Msg[] = [];
  gateway.nats.subscribe("all-at-once", {
    callback: (_error, message) => {
      waiting.push(message);
      if (waiting.length === clients.length) for (const each of waiting) each.respond("all");
    },
  });
  await gateway.nats.flush();
  const call = `SELECT convert_from(nats_request_text('all-at-once', '', ${patientLimits.requestTimeoutMs}), 'UTF8') AS answer`;
  const answers = await Promise.all(clients.map((client) => client.query<{ answer: string }>(call)));
  expect(answers.map(({ rows }) => rows[0]!.answer)).toEqual(clients.map(() => "all"));
  await Promise.all(clients.map((client) => client.end()));
}
