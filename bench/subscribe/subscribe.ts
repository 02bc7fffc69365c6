/**
 * The suite `subscribe`: from NATS to rows, by a subscribed function.
 */
import { measureSideBySide, median, orderOf, warmUpCost } from "../measure.js";
import { formatBytes, formatValue } from "../report.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Baseline, Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { BridgeUnderTest, type Run } from "./bridge.js";
import type { Latencies, PingWay } from "./process.js";

const full = { messages: 100_000, rounds: 5, payloadSizes: [100, 200, 1024], pings: 500, pingRounds: 5 };
const quick = { messages: 1_000, rounds: 1, payloadSizes: [100], pings: 20, pingRounds: 1 };
const quickRunSeconds = 0.02;
const firstAmount = 100;

/** Pings a second are a hundred. */
const pingEveryMs = 10;
const pingBytes = 100;

/** The baselines: how many connections insert. */
const baselines = [
  { name: "1 connection", connections: 1 },
  { name: "8 connections", connections: 8 },
];

const ways = ["from the first publish", "from a backlog"] as const;
const pingWays: readonly PingWay[] = ["message", "prepared transaction"];

const page: SuitePage = {
  title: "From NATS to SQL",
  text: `100,000 messages are published as fast as nats-server takes them, to a subject whose subscribed function inserts one
row for each. \`hawser serve\` is a process of its own, the publisher another one. Each run checks that every row is
there once, in order.

- **from the first publish** ends when the last row is committed. **from a backlog** begins when all messages are received
  and a lock on the table is released that has kept the function waiting.
- \`1 connection\` and \`8 connections\` insert the same rows without NATS: a prepared \`INSERT\` in a transaction of its own
  for each row, one after another on each connection, by node-postgres.
- **ping to row**: 100 messages a second, and a function that inserts and notifies. The time is from the publish until
  another session has heard of it, which is after the commit. \`prepared transaction\` calls the same function by a
  prepared statement, at the same pace.
- \`--buffer\` is 256 MiB, as 100,000 messages of 1 KiB may be waiting. The memory is that of the whole process, with
  Node.

**What is in the way.** From the first publish, publisher, nats-server, serve and Postgres share two processors, and eight
connections keep both busy with Postgres alone: serve needs 4 µs for a message, a third of one processor, and Postgres 8 µs,
most of it the row itself. A ping takes three round trips to Postgres where the prepared transaction takes one: the beginning, with the fence
and the check of the wrapper (0.9 ms of waking up, parsing and running), the call (0.9 ms) and the commit (0.8 ms), and 0.5 ms from
the publisher through nats-server to serve. That the plans of functions outlive a batch, and that less is checked before it, took 1.4 of
5.3 ms away; to send the call without waiting for the check would have Postgres plan what a role may have put in the place of its wrapper.`,
  charts: [
    { title: "From the first publish", results: [ways[0]], scale: "logarithmic" },
    { title: "Ping to row", results: ["ping to row, p50", "ping to row, p99"] },
  ],
};

/** The suite. */
export const subscribe: Suite = {
  name: "subscribe",
  summary: "messages/s from NATS to rows by a subscribed function, beside one prepared transaction each; ping to row",
  seconds: 240,
  page,
  targets: [
    ...[100, 200].flatMap((payloadBytes) => [
      { name: ways[0], payloadBytes, baseline: "1 connection", atLeast: 25 },
      { name: ways[0], payloadBytes, baseline: "8 connections", atLeast: 8 },
    ]),
    { name: "ping to row, p50", payloadBytes: pingBytes, baseline: "prepared transaction", atMost: 2 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { say } = context;
  const { payloadSizes, pings, pingRounds } = context.quick ? quick : full;
  say("Starting the bridge and the publisher");
  const bridge = await BridgeUnderTest.start(servers, context);
  try {
    say("Measuring pings");
    const pingResults = await measurePings(context, bridge);
    const results: Measured[] = [];
    const notes: string[] = [`each time ${formatValue((context.quick ? quick : full).messages)} messages`];
    for (const [position, payloadBytes] of payloadSizes.entries()) {
      say(`Measuring ${formatBytes(payloadBytes)}`);
      const secondsLeft = (context.endBy - performance.now()) / 1000 / (payloadSizes.length - position);
      const measured = await measureLoads(context, bridge, payloadBytes, secondsLeft);
      results.push(...measured.results);
      notes.push(measured.note);
    }
    notes.push(`pings: ${context.rounds(pingRounds)} times ${pings}`);
    return { results: [...inOrder(results), ...pingResults], notes };
  } finally {
    await bridge.stop();
  }
}

/** Results grouped by name, so that each name has one table. */
function inOrder(results: readonly Measured[]): Measured[] {
  const names = [...new Set(results.map(({ name }) => name))];
  return names.flatMap((name) => results.filter((result) => result.name === name));
}

async function measureLoads(
  { quick: isQuick, signal, rounds: roundsOf }: SuiteContext,
  bridge: BridgeUnderTest,
  payloadBytes: number,
  seconds: number,
): Promise<{ results: Measured[]; note: string }> {
  const { messages, rounds: fullRounds } = isQuick ? quick : full;
  const rounds = roundsOf(fullRounds);
  const load = { messages, payloadBytes };
  const runs = new Map<string, Run[]>(ways.map((way) => [way, []]));
  const rates = await measureSideBySide(
    [
      ...ways.map((way) => ({
        name: way,
        // Always all of them: what counts is how a load of that size goes.
        run: async (amount: number) => {
          const run = await (way === "from a backlog" ? bridge.runBacklog(load) : bridge.run(load));
          runs.get(way)!.push(run);
          return (run.seconds * amount) / messages;
        },
      })),
      ...baselines.map(({ name, connections }) => ({
        name,
        run: (amount: number) => bridge.insert({ messages: amount, payloadBytes }, connections),
      })),
    ],
    {
      rounds,
      secondsPerRun: isQuick ? quickRunSeconds : seconds / (ways.length + baselines.length) / (rounds + warmUpCost),
      firstAmount,
      signal,
    },
  );
  const beside: Baseline[] = baselines.map(({ name }) => ({ name, samples: rates.get(name)! }));
  const counted = (way: (typeof ways)[number]): Run[] => runs.get(way)!.slice(-rounds);
  const result = (name: string, unit: string, better: Measured["better"], samples: readonly number[]): Measured => ({
    name,
    payloadBytes,
    unit,
    better,
    samples,
    baselines: [],
  });
  const used = counted(ways[0]);
  return {
    results: [
      ...ways.map((way) => ({ ...result(way, "messages/s", "higher", rates.get(way)!), baselines: beside })),
      result(
        "serve RSS",
        "MiB",
        "lower",
        used.map(({ usage }) => usage.rss / 2 ** 20),
      ),
      result(
        "serve CPU",
        "µs",
        "lower",
        used.map(({ usage }) => (usage.cpuSeconds / messages) * 1e6),
      ),
    ],
    note: `${formatBytes(payloadBytes)}: ${ways.map((way) => `${way} ${wordsOf(counted(way), messages)}`).join("; ")}`,
  };
}

function wordsOf(runs: readonly Run[], messages: number): string {
  const batch = median(runs.map(({ transactions }) => messages / transactions.count));
  const largest = Math.max(...runs.map(({ transactions }) => transactions.largest));
  const share = median(runs.map(({ usage }) => usage.cpuSeconds / usage.seconds));
  return `${formatValue(batch)} messages a transaction, ${formatValue(largest)} at most, and serve used ${formatValue(share * 100)} % of a processor`;
}

async function measurePings(context: SuiteContext, bridge: BridgeUnderTest): Promise<Measured[]> {
  const { pings: times, pingRounds: fullRounds } = context.quick ? quick : full;
  const pingRounds = context.rounds(fullRounds);
  const latencies = new Map<PingWay, Latencies[]>(pingWays.map((way) => [way, []]));
  // The first round is the warm-up.
  for (let round = 0; round <= pingRounds; round++) {
    for (const way of orderOf(pingWays, round)) {
      context.signal.throwIfAborted();
      await bridge.rows.clear();
      const load = { way, times, everyMs: pingEveryMs, payloadBytes: pingBytes };
      const measured = await bridge.publishing.request("ping", load);
      await bridge.rows.check(times, pingBytes, true);
      if (round > 0) latencies.get(way)!.push(measured);
    }
  }
  const [ours, baseline] = pingWays.map((way) => latencies.get(way)!);
  return (["p50", "p99"] as const).map((percentile) => ({
    name: `ping to row, ${percentile}`,
    payloadBytes: pingBytes,
    unit: "µs",
    better: "lower",
    samples: ours!.map((each) => each[percentile]),
    baselines: [{ name: "prepared transaction", samples: baseline!.map((each) => each[percentile]) }],
  }));
}
