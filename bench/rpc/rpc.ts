/**
 * The suite `rpc`: what a call by Connect takes, beside a request that carries the same bytes.
 */
import { type AskingComparison, measureLatencies } from "../latencies.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import type { CallingWay, RpcRequests } from "./process.js";

const payloadBytes = 100;

/** Ours, and what each is compared with. */
const comparisons: readonly AskingComparison<CallingWay>[] = [
  { ours: "over peers", baselines: ["peer.request"] },
  { ours: "over NATS", baselines: ["NATS request"] },
];

const page: SuitePage = {
  title: "RPC, one call at a time",
  text: `A unary call by Connect with a field of 100 bytes, whose handler answers with the same bytes; the next one when the
answer has come. Below 1× it takes longer than what it is compared with, which are the same bytes without Protobuf, metadata,
codes and time limits.

- **over peers** is compared with \`peer.request\`.
- **over NATS** is compared with \`request\` of nats.js, answered by a subscription.

**What is in the way.** What a call has more than \`peer.request\` is encoding and decoding on both sides, Connect's own steps
(its context, interceptors, time limit and signal), and the check of codes and metadata: some 30 µs in all, of which no part
stands out. Runs of this suite have found 1.15 to 1.21 times.`,
  charts: [
    { title: "RPC over peers", results: ["over peers, p50", "over peers, p99"], scale: "logarithmic" },
    { title: "RPC over NATS", results: ["over NATS, p50", "over NATS, p99"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const rpc: Suite = {
  name: "rpc",
  summary: "µs for one call by Connect, beside a request of a peer and one of NATS",
  seconds: 25,
  page,
  targets: [{ name: "over peers, p50", payloadBytes, baseline: "peer.request", atMost: 1.2 }],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  context.say("Starting the calling and the answering process");
  const program = new URL("./process.ts", import.meta.url);
  const answering = Worker.start<RpcRequests>("answering", program, { source: context.source });
  const calling = Worker.start<RpcRequests>("calling", program, { source: context.source });
  try {
    const where = { databaseUrl: servers.databaseUrl, natsUrl: servers.natsUrl, payloadBytes };
    await answering.request("answer", where);
    await calling.request("connect", where);
    const results = await measureLatencies(context, payloadBytes, comparisons, (way, times) =>
      calling.request("ask", { way, times }),
    );
    return { results, notes: [] };
  } finally {
    await calling.stop();
    await answering.stop();
  }
}
