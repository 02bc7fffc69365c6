/**
 * The suite `ping-pong`: how long one message takes when nothing else is under way.
 */
import { measureSideBySide, warmUpCost } from "../measure.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { AskingWay, Latencies, PingPongRequests } from "./process.js";

const payloadBytes = 100;
const fullRounds = 7;
const quickRounds = 2;
const quickRunSeconds = 0.01;
const firstTimes = 50;

/** Ours, and what each is compared with. */
const pairs: readonly { readonly ours: AskingWay; readonly baseline: AskingWay }[] = [
  { ours: "request and reply", baseline: "tcp" },
  { ours: "until delivered", baseline: "tcp and commit" },
];

const page: SuitePage = {
  title: "One message at a time",
  text: `100 bytes go to the other process, and the next ones when the answer has come.

- **request and reply** is an at-most-once message whose handler replies at most once. \`tcp\` is a Node socket on either
  side that sends back what comes: no framing, no numbers, no handler.
- **until delivered** is an at-least-once \`sendTo\` until its promise resolves \`delivered\`: there, through the handler,
  committed, and back. \`tcp and commit\` is the same by hand: the socket that answers inserts a small row into the same
  Postgres before it does, with a prepared statement.`,
  charts: [
    {
      title: "At most once, request and reply",
      results: ["request and reply, p50", "request and reply, p99"],
      scale: "logarithmic",
    },
    {
      title: "At least once, until delivered",
      results: ["until delivered, p50", "until delivered, p99"],
      scale: "logarithmic",
    },
  ],
};

/** The suite. */
export const pingPong: Suite = {
  name: "ping-pong",
  summary: "µs for one message there and back, beside a TCP echo, and beside a TCP echo with a commit",
  seconds: 25,
  page,
  targets: [
    { name: "request and reply, p50", payloadBytes, baseline: "tcp", atMost: 1.5 },
    { name: "until delivered, p50", payloadBytes, baseline: "tcp and commit", atMost: 1.5 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { signal, say, endBy, quick } = context;
  say("Starting the asking and the answering process");
  const program = new URL("./process.ts", import.meta.url);
  const answering = Worker.start<PingPongRequests>("answering", program, { source: context.source });
  const asking = Worker.start<PingPongRequests>("asking", program, { source: context.source });
  try {
    const { databaseUrl } = servers;
    const ports = await answering.request("answer", { databaseUrl, payloadBytes });
    await asking.request("connect", { databaseUrl, payloadBytes, ports });
    await answering.request("reachAsking", undefined);
    const count = quick ? quickRounds : context.rounds(fullRounds);
    const ways = pairs.flatMap(({ ours, baseline }) => [ours, baseline]);
    const latencies = new Map<AskingWay, Latencies[]>(ways.map((way) => [way, []]));
    say("Measuring");
    const secondsLeft = (endBy - performance.now()) / 1000;
    await measureSideBySide(
      ways.map((way) => ({
        name: way,
        run: async (times) => {
          const measured = await asking.request("ask", { way, times });
          latencies.get(way)!.push(measured);
          return measured.seconds;
        },
      })),
      {
        rounds: count,
        secondsPerRun: quick ? quickRunSeconds : secondsLeft / ways.length / (count + warmUpCost),
        firstAmount: firstTimes,
        signal,
      },
    );
    const results = pairs.flatMap(({ ours, baseline }) =>
      (["p50", "p99"] as const).map((percentile): Measured => {
        // The first ones were the warm-up.
        const samplesOf = (way: AskingWay) =>
          latencies
            .get(way)!
            .slice(-count)
            .map((each) => each[percentile]);
        return {
          name: `${ours}, ${percentile}`,
          payloadBytes,
          unit: "µs",
          better: "lower",
          samples: samplesOf(ours),
          baselines: [{ name: baseline, samples: samplesOf(baseline) }],
        };
      }),
    );
    return { results, notes: [] };
  } finally {
    await asking.stop();
    await answering.stop();
  }
}
