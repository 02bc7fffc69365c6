/**
 * The suite `offline`: messages for somebody who is away, and then starts.
 */
import pg from "pg";
import { type BenchServers, withServers } from "../bench-servers.js";
import { orderOf } from "../side-by-side.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { formatBytes } from "../tables.js";
import { Worker } from "../worker.js";
import type { DrainingRequests } from "./draining-process.js";
import { type Load, type SystemName, systemNames } from "./queue-user.js";
import type { StoringRequests } from "./storing-process.js";

const full = { messages: 100_000, warmUp: 5_000, rounds: 3, payloadSizes: [100, 1024] };
const quick = { messages: 500, warmUp: 100, rounds: 1, payloadSizes: [100] };

const page: SuitePage = {
  title: "Store and drain 100,000 messages",
  text: `The listener is away, 100,000 messages are stored, then it starts. **store** is the time until all of them are
committed; **drain** is from the start of the listener (in a process that runs already) until all are handled, by a
handler that does nothing, and that is committed; **total** is the sum. All three use the same Postgres, each in two
processes of its own; before each phase there is a \`VACUUM ANALYZE\`, which autovacuum would do in the meantime.

- **Hawser**: \`sendTo\`, 8,192 sends under way, every receipt looked at; then \`run\` with default settings. Messages of
  a sender are handled in order.
- **pg-boss 10.4.2**: \`insert\` of 5,000 jobs at a time; then \`fetch\` of 5,000 and \`complete\` of all of them, both in
  two loops side by side, the fastest of several sizes that were tried. Its own \`work\` does the same, but waits half a
  second or more between two fetches. Maintenance and cron are off.
- **graphile-worker 0.16.6**: \`add_jobs\` of 5,000 at a time; then \`run\` with concurrency 4, the fastest of several
  that were tried. This version takes and completes each job by itself; the local queue of 0.17, which takes many at
  a time, needs Node 22.

Both job queues can do things that Hawser does not: priorities, delays, schedules, many workers that share a queue.`,
  charts: [
    { title: "Store and drain 100,000 messages", results: ["total"], scale: "logarithmic" },
    { title: "Store", results: ["store"] },
    { title: "Drain", results: ["drain"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const offline: Suite = {
  name: "offline",
  summary: "seconds to store and drain 100,000 messages, beside pg-boss and graphile-worker",
  seconds: 240,
  page,
  targets: [
    { name: "total", payloadBytes: 100, baseline: "pg-boss", atMost: 1 / 5 },
    { name: "total", payloadBytes: 100, baseline: "graphile-worker", atMost: 1 / 3 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

interface Processes {
  readonly storing: Worker<StoringRequests>;
  readonly draining: Worker<DrainingRequests>;
}

interface Took {
  readonly store: number;
  readonly drain: number;
}

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { messages, warmUp, rounds, payloadSizes } = context.quick ? quick : full;
  const client = new pg.Client({ connectionString: servers.databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  const systems = new Map<SystemName, Processes>();
  try {
    context.say("Starting two processes for each system");
    for (const system of systemNames) systems.set(system, await open(system, servers.databaseUrl, context));
    const run = async (system: SystemName, load: Load): Promise<Took> => {
      const { storing, draining } = systems.get(system)!;
      context.signal.throwIfAborted();
      await client.query("VACUUM ANALYZE");
      const store = await storing.request("store", load);
      context.signal.throwIfAborted();
      await client.query("VACUUM ANALYZE");
      return { store, drain: await draining.request("drain", load.messages) };
    };
    for (const system of systemNames) await run(system, { payloadBytes: 100, messages: warmUp });
    const results: Measured[] = [];
    for (const [index, payloadBytes] of payloadSizes.entries()) {
      const took = new Map<SystemName, Took[]>(systemNames.map((system) => [system, []]));
      const endBy = performance.now() + (context.endBy - performance.now()) / (payloadSizes.length - index);
      // One round at least; on a slow machine the others may take longer than anybody wants to wait.
      for (let round = 0; round < rounds && (round === 0 || performance.now() < endBy); round++) {
        context.say(`Measuring ${formatBytes(payloadBytes)}, round ${round + 1} of ${rounds}`);
        for (const system of orderOf(systemNames, round)) {
          took.get(system)!.push(await run(system, { payloadBytes, messages }));
        }
      }
      results.push(
        measuredOf("store", payloadBytes, took, ({ store }) => store),
        measuredOf("drain", payloadBytes, took, ({ drain }) => drain),
        measuredOf("total", payloadBytes, took, ({ store, drain }) => store + drain),
      );
    }
    return { results, notes: [`each time ${messages.toLocaleString("en-US")} messages`] };
  } finally {
    await Promise.all([...systems.values()].flatMap(({ storing, draining }) => [storing.stop(), draining.stop()]));
    await client.end();
  }
}

async function open(system: SystemName, databaseUrl: string, { signal }: SuiteContext): Promise<Processes> {
  const storingProgram = new URL("./storing-process.ts", import.meta.url);
  const drainingProgram = new URL("./draining-process.ts", import.meta.url);
  const storing = Worker.start<StoringRequests>(`storing ${system}`, storingProgram, { signal });
  const draining = Worker.start<DrainingRequests>(`draining ${system}`, drainingProgram, { signal });
  try {
    // One after the other: the first one makes the tables.
    await storing.request("open", { system, databaseUrl });
    await draining.request("open", { system, databaseUrl });
  } catch (error) {
    await Promise.all([storing.stop(), draining.stop()]);
    throw error;
  }
  return { storing, draining };
}

function measuredOf(
  name: string,
  payloadBytes: number,
  took: ReadonlyMap<SystemName, readonly Took[]>,
  secondsOf: (took: Took) => number,
): Measured {
  const samplesOf = (system: SystemName): number[] => took.get(system)!.map(secondsOf);
  return {
    name,
    payloadBytes,
    unit: "s",
    better: "lower",
    samples: samplesOf("hawser"),
    baselines: systemNames
      .filter((system) => system !== "hawser")
      .map((system) => ({ name: system, samples: samplesOf(system) })),
  };
}
