/**
 * Listeners are killed or stand still at random while many requests are made of them. Each request ends within its time, with
 * its own answer or with an error that says what is known. HAWSER_REQUESTS says how many there are, HAWSER_FAULT_SEED
 * repeats the choices of a run (not its timing).
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { HawserError, Peer } from "../../src/jobs-and-peers/peer/index.js";
import { Random } from "../simulator/random.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";
import { Crew } from "./support/crew.js";
import { faultSeed, patienceMs } from "./support/kills.js";

const requests = Number(process.env["HAWSER_REQUESTS"] ?? 20_000);
const atOnce = 100;
const timeoutMs = 2_000;
/** A fast machine goes on until there were so many. */
const leastKills = 3;
const listeners = ["answers-1", "answers-2", "answers-3"];

it(`${requests} requests end in time when listeners are killed (HAWSER_FAULT_SEED=${faultSeed})`, {
  timeout: patienceMs + requests * 10,
}, async () => {
  const random = new Random(faultSeed);
  await using database = await testDatabase({ nats: false });
  const env = { HAWSER_DATABASE_URL: database.url };
  const crew = new Crew((name) => startProgram("test/faults/programs/answering-peer.ts", [name, "answers"], { env }));
  await crew.start(...listeners);
  await using peer = new Peer({ name: "asks", topic: "asks", listen: "127.0.0.1:0", databaseUrl: database.url });
  await peer.start();
  await eventually("all listeners are there", async () => (await peer.listenersOf("answers")).length === 3, 60_000);

  const ends: Record<string, number> = {};
  const wrong: string[] = [];
  let longest = 0;
  let made = 0;
  let kills = 0;
  let stalls = 0;
  const goesOn = (): boolean => made < requests || kills < leastKills;
  const asking = Array.from({ length: atOnce }, async () => {
    while (goesOn()) {
      const n = ++made;
      const began = performance.now();
      let end = "answered";
      try {
        const { payload } = await peer.request("answers", `${n}`, { timeoutMs, idempotent: n % 2 === 0 });
        const text = Buffer.from(payload).toString();
        if (text !== `answer to ${n}`) wrong.push(`${n}: ${text}`);
      } catch (error) {
        if (!(error instanceof HawserError)) throw error;
        end = error.code;
        // The time between an end and the next dial passes quickly, and so would all requests.
        if (error.code === "unreachable") await delay(50);
      }
      ends[end] = (ends[end] ?? 0) + 1;
      longest = Math.max(longest, performance.now() - began);
    }
  });
  const killing = (async () => {
    while (goesOn()) {
      await delay(random.between(100, 1_500));
      const name = random.pick(listeners);
      if (random.chance(0.25)) {
        stalls += 1;
        crew.signal(name, "SIGSTOP");
        await delay(random.between(100, 4_000));
        crew.signal(name, "SIGCONT");
      } else {
        kills += 1;
        await crew.end(name);
        crew.launch(name);
      }
    }
  })();
  await Promise.all(asking);
  await killing;
  console.log(
    `${made} requests, ${kills} kills, ${stalls} stalls, longest ${Math.round(longest)} ms: ${JSON.stringify(ends)}`,
  );
  expect([...wrong, ...crew.unasked]).toEqual([]);
  expect(Object.values(ends).reduce((sum, count) => sum + count, 0)).toBe(made);
  expect(Object.keys(ends).filter((end) => !ordinary.has(end))).toEqual([]);
  expect(ends["answered"]).toBeGreaterThan(requests / 2);
  expect(ends["listener_lost"]).toBeGreaterThan(0);
});

/** Expected outcomes of a request under kills. */
const ordinary = new Set(["answered", "handler_failed", "listener_lost", "request_timeout", "unreachable", "busy"]);
