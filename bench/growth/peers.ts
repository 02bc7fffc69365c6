/**
 * By peers: so many use the database, and two more exchange messages.
 */
import { BySize, counted } from "../by-size.js";
import { execute } from "../postgres.js";
import { type BenchServers, createDatabase } from "../servers.js";
import type { Measured, SuiteContext } from "../suite.js";
import { Worker } from "../worker.js";
import type { CrowdRequests } from "./crowd.js";
import { Pair } from "./pair.js";

const full = { sizes: [10, 100, 1_000], rounds: 3, messages: 200_000, warmUp: 200_000, stored: 20_000 };
const quick = { sizes: [2, 20], rounds: 1, messages: 400, warmUp: 40, stored: 40 };

/** Share of real peers, as a divisor: a tenth of the crowd; the other peers are simulated. */
const realOf = 10;

/** Connections of a real peer, and connections reserved for everything other than the crowd. */
const connectionsOfReal = 5;
const otherConnections = 60;

/** `max_connections` that the largest crowd needs. */
export const wantedConnections = 1_000 + 100 * connectionsOfReal + otherConnections;

export const peersOf = counted("peer");

/** Measures while the crowd grows. Sender and listener are new processes for each size. */
export async function byPeers(
  context: SuiteContext,
  servers: BenchServers,
  payloadBytes: number,
): Promise<{ results: Measured[]; note: string }> {
  const { sizes, rounds, messages, warmUp, stored } = context.quick ? quick : full;
  const { source, signal } = context;
  const found = new BySize(peersOf);
  const database = await createDatabase(servers, context);
  const crowd = Worker.start<CrowdRequests>("crowd", new URL("./crowd.ts", import.meta.url), { source, signal });
  let note = "";
  try {
    const [row] = (await execute(database.url, "SELECT current_setting('max_connections')::int AS most")) as {
      most: number;
    }[];
    // Makes the schema.
    await (await Pair.start(database.url, ["bench"], context)).stop();
    for (const size of sizes) {
      const real = Math.floor(size / realOf);
      const sessions = Math.max(1, Math.min(size - real, row!.most - real * connectionsOfReal - otherConnections));
      context.say(`Measuring ${peersOf(size)}`);
      await crowd.request("grow", { databaseUrl: database.url, simulated: size - real, sessions, real });
      note = `${peersOf(size)}: ${real} of them real, the others simulated with ${counted("session")(sessions)}`;
      const pair = await Pair.start(database.url, ["bench"], context);
      try {
        await pair.send({ messages: warmUp, payloadBytes });
        for (let round = 0; round < context.rounds(rounds); round++) {
          const { time, cpu } = await pair.send({ messages, payloadBytes });
          found.add("time by peers", "µs", size, time);
          found.add("CPU by peers", "µs", size, cpu);
        }
        for (let round = 0; round < context.rounds(rounds); round++) {
          await pair.leaveSenderAlone();
          found.add("store by peers", "µs", size, await pair.store({ messages: stored, payloadBytes }));
          found.add("start by peers", "ms", size, await pair.restart(stored));
        }
      } finally {
        await pair.stop();
      }
    }
    return { results: found.results(payloadBytes), note };
  } finally {
    await crowd.stop();
    await database.drop();
  }
}
