/**
 * By subscriptions: so many SQL functions are subscribed with `nats_subscribe`; messages go to one of them, or to all.
 */
import type pg from "pg";
import { BySize, counted } from "../by-size.js";
import { connected } from "../postgres.js";
import type { BenchServers } from "../servers.js";
import { BridgeUnderTest } from "../subscribe/bridge.js";
import { subjects } from "../subscribe/subjects.js";
import type { Measured, SuiteContext } from "../suite.js";

const full = { sizes: [10, 100, 1_000, 5_000], rounds: 2, messages: 100_000, spread: 20_000, calls: 10, restMs: 6_000 };
const quick = { sizes: [2, 20], rounds: 1, messages: 200, spread: 200, calls: 1, restMs: 10 };

/** Each takes five seconds at most. */
const liveTries = 12;

export const subscriptionsOf = counted("subscription");

/** The subscriptions grow in number; the process that runs them goes on. */
export async function bySubscriptions(
  context: SuiteContext,
  servers: BenchServers,
  payloadBytes: number,
): Promise<Measured[]> {
  const { sizes, rounds, messages, spread, calls, restMs } = context.quick ? quick : full;
  const found = new BySize(subscriptionsOf);
  const client = await connected(servers.databaseUrl);
  const bridge = await BridgeUnderTest.start(servers, context, { max_role_subscriptions: 2 * Math.max(...sizes) });
  try {
    await bridge.run({ messages, payloadBytes });
    let present = 0;
    for (const size of sizes) {
      context.signal.throwIfAborted();
      context.say(`Measuring ${subscriptionsOf(size)}`);
      const subscribe =
        "SELECT nats_subscribe($1 || '.' || n, 'bench_row') FROM generate_series($2::int, $3::int) AS n";
      await client.query(subscribe, [subjects.row, present, size - calls - 1]);
      for (present = size - calls; present < size; present++) {
        const began = performance.now();
        await client.query(subscribe, [subjects.row, present, present]);
        found.add("subscribe by subscriptions", "ms", size, performance.now() - began);
      }
      await live(client);
      for (let round = 0; round < context.rounds(rounds); round++) {
        const one = await bridge.run({ messages, payloadBytes });
        found.add("time by subscriptions", "µs", size, (one.seconds * 1e6) / messages);
        found.add("CPU by subscriptions", "µs", size, (one.usage.cpuSeconds * 1e6) / messages);
        if (round > 0) continue;
        const all = await bridge.run({ messages: spread, payloadBytes, over: size });
        found.add("time, to all, by subscriptions", "µs", size, (all.seconds * 1e6) / spread);
        found.add("CPU, to all, by subscriptions", "µs", size, (all.usage.cpuSeconds * 1e6) / spread);
      }
      found.add("idle CPU by subscriptions", "ms/s", size, await bridge.rest(restMs));
    }
    return found.results(payloadBytes);
  } finally {
    await bridge.stop();
    await client.end();
  }
}

/** Resolves when all that is subscribed is live. On a slow machine a call may take longer than it may. */
async function live(client: pg.Client): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await client.query("SELECT litmus_pgnats_reload_conf()");
      return;
    } catch (error) {
      if (tries === liveTries) throw error;
    }
  }
}
