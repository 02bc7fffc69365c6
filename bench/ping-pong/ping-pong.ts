/**
 * The suite `ping-pong`: how long one message takes when nothing else is under way.
 */
import { baselineOf, LineProgram, missingNote } from "../baselines.js";
import { type AskingComparison, type Latencies, measureLatencies } from "../latencies.js";
import { type BenchServers, createDatabase, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { AskingWay, PingPongRequests } from "./process.js";

const payloadBytes = 100;

/** Ours, and what each is compared with. */
const comparisons = (withLiner: boolean): readonly AskingComparison<AskingWay | "liner">[] => [
  { ours: "request and reply", baselines: withLiner ? ["tcp", "liner"] : ["tcp"] },
  { ours: "request", baselines: ["request and reply"] },
  { ours: "until delivered", baselines: ["tcp and commit"] },
];

const page: SuitePage = {
  title: "One message at a time",
  text: `100 bytes go to the other process, and the next ones when the answer has come.

- **request and reply** is an at-most-once message whose handler replies at most once. \`tcp\` is a Node socket on either
  side that sends back what comes: no framing, no numbers, no handler. \`liner\` is liner 1.4.1 (Rust), both its clients in
  one process; its p50 and p99 are of two runs.
- **request** is peer.request, whose answer is what the handler returns, beside the line above: a message and a reply.
- **until delivered** is an at-least-once \`sendTo\` until its promise resolves \`delivered\`: there, through the handler,
  committed, and back. \`tcp and commit\` is the same by hand: the socket that answers inserts a small row into the same
  Postgres before it does, with a prepared statement.

**What is in the way.** Three processes work one after another, and wake each other. Of what we take longer with a commit,
about a third is Postgres: \`commit_cursors\` proves that the name is still held and the channel still the
listener's, moves the cursor and deletes what was stored up to it. In two statements instead of four it takes a tenth less, which
is what is left of that. The rest is spread over frames, queues, the handler, the query and the Ack in two processes.`,
  charts: [
    {
      title: "At most once, request and reply",
      results: ["request and reply, p50", "request and reply, p99"],
      scale: "logarithmic",
    },
    {
      title: "Request",
      results: ["request, p50", "request, p99"],
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
  seconds: 30,
  page,
  targets: [
    { name: "request and reply, p50", payloadBytes, baseline: "tcp", atMost: 1.5 },
    { name: "request and reply, p99", payloadBytes, baseline: "liner", atMost: 1 },
    { name: "request, p50", payloadBytes, baseline: "request and reply", atMost: 1.2 },
    { name: "until delivered, p50", payloadBytes, baseline: "tcp and commit", atMost: 1.5 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  context.say("Starting the asking and the answering process");
  const program = new URL("./process.ts", import.meta.url);
  const answering = Worker.start<PingPongRequests>("answering", program, { source: context.source });
  const asking = Worker.start<PingPongRequests>("asking", program, { source: context.source });
  const liner = baselineOf("HAWSER_BENCH_LINER");
  const database = liner === undefined ? undefined : await createDatabase(servers, context);
  const native = database === undefined ? undefined : LineProgram.start("liner", liner!, [database.url]);
  const askLiner = async (times: number): Promise<Latencies> => {
    const began = performance.now();
    const p50 = await native!.order(`ping-pong ${payloadBytes} ${times} 500`);
    const seconds = (performance.now() - began) / 1000;
    return { seconds, p50: p50 * 1000, p99: (await native!.order(`ping-pong ${payloadBytes} ${times} 990`)) * 1000 };
  };
  try {
    const { databaseUrl } = servers;
    const ports = await answering.request("answer", { databaseUrl, payloadBytes });
    await asking.request("connect", { databaseUrl, payloadBytes, ports });
    await answering.request("reachAsking", undefined);
    const results = await measureLatencies(context, payloadBytes, comparisons(native !== undefined), (way, times) =>
      way === "liner" ? askLiner(times) : asking.request("ask", { way, times }),
    );
    return { results, notes: native === undefined ? [missingNote("liner", "HAWSER_BENCH_LINER")] : [] };
  } finally {
    await native?.stop();
    await database?.drop();
    await asking.stop();
    await answering.stop();
  }
}
