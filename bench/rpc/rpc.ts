/**
 * The suite `rpc`: what a call by Connect takes, beside a request that carries the same bytes, and other ways of RPC.
 */
import { packages } from "../baselines.js";
import { type AskingComparison, inFlightVariant, measureLatencies } from "../latencies.js";
import { type BenchServers, withServers } from "../servers.js";
import type { Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { Worker } from "../worker.js";
import { alternativeNames } from "./alternatives.js";
import type { CallingWay, RpcRequests } from "./process.js";

const payloadBytes = 100;

/** Ways of ours, each with its baselines. */
const comparisons = [1, 64].flatMap((inFlight): AskingComparison<CallingWay>[] => [
  { ours: "over peers", baselines: ["peer.request", ...alternativeNames], inFlight },
  { ours: "over NATS", baselines: ["NATS request"], inFlight },
]);

const page: SuitePage = {
  title: "RPC",
  text: `A unary call by Connect with a field of 100 bytes, whose handler answers with the same bytes. One call is in flight, and the
next one begins when the answer has come; or 64 are.

- \`peer.request\` and \`NATS request\`, the \`request\` of nats.js answered by a subscription, carry the same bytes without
  Protobuf, metadata, codes and time limits.
- \`connect-es\` is connect-node ${packages["@connectrpc/connect-node"]}, the Connect protocol over HTTP/2 with binary messages.
- \`grpc-js\` is @grpc/grpc-js ${packages["@grpc/grpc-js"]} with messages by proto-loader.
- \`tRPC HTTP\` and \`tRPC WebSocket\` are tRPC ${packages["@trpc/client"]}: a mutation with a text of 100 characters, as its JSON has no
  bytes, by \`httpBatchLink\`, which sends what is asked at one time in one request, or by \`wsLink\`.

All go from one process to another without TLS, each over the connections that its library keeps.

**What is in the way.** What a call has more than \`peer.request\` is encoding and decoding on both sides, Connect's own steps
(its context, interceptors, time limit and signal), and the check of codes and metadata: some 30 µs in all, of which no part
stands out. Runs of this suite have found 1.15 to 1.21 times.`,
  charts: [
    { title: "RPC over peers", results: ["over peers, p50", "over peers, p99"], scale: "logarithmic" },
    { title: "RPC over peers, calls", results: ["over peers, calls"], scale: "logarithmic" },
    { title: "RPC over NATS", results: ["over NATS, p50", "over NATS, p99"], scale: "logarithmic" },
  ],
};

/** The suite. */
export const rpc: Suite = {
  name: "rpc",
  summary: "µs and calls/s by Connect, beside requests of a peer and NATS, connect-es over HTTP/2, grpc-js and tRPC",
  seconds: 120,
  page,
  targets: [
    { name: "over peers, p50", payloadBytes, variant: inFlightVariant(1), baseline: "peer.request", atMost: 1.2 },
  ],
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, servers: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  context.say("Starting the calling and the answering process");
  const program = new URL("./process.ts", import.meta.url);
  const answering = Worker.start<RpcRequests>("answering", program, { source: context.source });
  const calling = Worker.start<RpcRequests>("calling", program, { source: context.source });
  try {
    const where = { databaseUrl: servers.databaseUrl, natsUrl: servers.natsUrl, payloadBytes };
    const addresses = await answering.request("answer", where);
    await calling.request("connect", { ...where, addresses });
    const results = await measureLatencies(context, payloadBytes, comparisons, (way, times, inFlight) =>
      calling.request("ask", { way, times, inFlight }),
    );
    return { results, notes: [] };
  } finally {
    await calling.stop();
    await answering.stop();
  }
}
