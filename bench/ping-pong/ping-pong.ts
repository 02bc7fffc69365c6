/**
 * The suite `ping-pong`: how long one message takes when nothing else is under way, and a request with others in flight.
 */
import { baselineOf, LineProgram, missingNote, packages } from "../baselines.js";
import { type AskingComparison, inFlightVariant, type Latencies, measureLatencies } from "../latencies.js";
import { type BenchServers, createDatabase, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { AskingWay, PingPongRequests } from "./process.js";

const payloadBytes = 100;

/** Ways of ours, each with its available baselines. */
function comparisonsOf(missing: ReadonlySet<string>): readonly AskingComparison<AskingWay | "liner">[] {
  const alternatives = ["tcp", "nats.js", "zeromq.js"] as const;
  const comparisons: readonly AskingComparison<AskingWay | "liner">[] = [
    { ours: "request and reply", baselines: ["tcp", "liner"], inFlight: 1 },
    { ours: "request", baselines: ["request and reply", ...alternatives], inFlight: 1 },
    { ours: "request", baselines: alternatives, inFlight: 64 },
    { ours: "until delivered", baselines: ["tcp and commit"], inFlight: 1 },
  ];
  return comparisons.map((each) => ({ ...each, baselines: each.baselines.filter((name) => !missing.has(name)) }));
}

const page: SuitePage = {
  title: "One message at a time, and requests",
  text: `100 bytes go to the other process, and the next ones when the answer has come. Of requests, also 64 are in flight at a time.

- **request and reply** is an at-most-once message whose handler replies at most once. \`tcp\` is a Node socket on either
  side that sends back what comes: no framing, no numbers, no handler. \`liner\` is liner 1.4.1 (Rust), both its clients in
  one process; its p50 and p99 are of two runs.
- **request** is peer.request, whose answer is what the handler returns, beside the line above: a message and a reply. \`tcp\` sends
  and answers many requests with one write where it can. \`nats.js\` is its \`request\` through nats-server to a subscription
  that responds. \`zeromq.js\` ${packages.zeromq} is a DEALER that asks a ROUTER, with a number before each payload.
- **until delivered** is an at-least-once \`peer.send\` until its promise resolves \`delivered\`: there, through the handler,
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
    { title: "Requests a second", results: ["request, calls"], scale: "logarithmic" },
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
  summary: "µs for one message there and back, beside a TCP echo, one with a commit, nats.js and zeromq.js",
  seconds: 45,
  page,
  targets: [
    { name: "request and reply, p50", payloadBytes, variant: inFlightVariant(1), baseline: "tcp", atMost: 1.5 },
    { name: "request and reply, p99", payloadBytes, variant: inFlightVariant(1), baseline: "liner", atMost: 1 },
    { name: "request, p50", payloadBytes, variant: inFlightVariant(1), baseline: "request and reply", atMost: 1.2 },
    {
      name: "until delivered, p50",
      payloadBytes,
      variant: inFlightVariant(1),
      baseline: "tcp and commit",
      atMost: 1.5,
    },
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
    const opening = { databaseUrl: servers.databaseUrl, natsUrl: servers.natsUrl, payloadBytes };
    const where = await answering.request("answer", opening);
    await asking.request("connect", { ...opening, where });
    await answering.request("reachAsking", undefined);
    const missing = new Map<string, string>();
    if (native === undefined) missing.set("liner", missingNote("liner", "HAWSER_BENCH_LINER"));
    if (where.zeromq === undefined) missing.set("zeromq.js", "zeromq.js was not measured: it cannot be loaded here");
    const comparisons = comparisonsOf(new Set(missing.keys()));
    const results = await measureLatencies(context, payloadBytes, comparisons, (way, times, inFlight) =>
      way === "liner" ? askLiner(times) : asking.request("ask", { way, times, inFlight }),
    );
    return { results, notes: [...missing.values()] };
  } finally {
    await native?.stop();
    await database?.drop();
    await asking.stop();
    await answering.stop();
  }
}
