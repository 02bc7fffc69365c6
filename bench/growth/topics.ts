/**
 * By topics: one listener serves so many, and one sender sends to one after another.
 */
import { BySize, counted } from "../by-size.js";
import { orderOf } from "../measure.js";
import { type BenchServers, createDatabase } from "../servers.js";
import type { Measured, SuiteContext } from "../suite.js";
import { Pair } from "./pair.js";

const full = { sizes: [10, 100, 1_000, 10_000], rounds: 3, messages: 100_000, warmUp: 100_000, restMs: 6_000 };
const quick = { sizes: [2, 20], rounds: 1, messages: 400, warmUp: 40, restMs: 10 };

export const topicsOf = counted("topic");

/** Each size has new processes and a database of its own. */
export async function byTopics(
  context: SuiteContext,
  servers: BenchServers,
  payloadBytes: number,
): Promise<Measured[]> {
  const { sizes, rounds, messages, warmUp, restMs } = context.quick ? quick : full;
  const found = new BySize(topicsOf);
  for (const size of orderOf(sizes, 1)) {
    context.say(`Measuring ${topicsOf(size)}`);
    const topics = Array.from({ length: size }, (_, number) => `bench-${number}`);
    const database = await createDatabase(servers, context);
    try {
      const pair = await Pair.start(database.url, topics, context);
      try {
        await pair.send({ messages: warmUp, payloadBytes });
        for (let round = 0; round < context.rounds(rounds); round++) {
          const { time, cpu } = await pair.send({ messages, payloadBytes });
          found.add("time by topics", "µs", size, time);
          found.add("CPU by topics", "µs", size, cpu);
        }
        found.add("idle CPU by topics", "ms/s", size, await pair.rest(restMs));
      } finally {
        await pair.stop();
      }
    } finally {
      await database.drop();
    }
  }
  return found.results(payloadBytes);
}
