/**
 * The suite `typed`: what typed messages cost over their bytes.
 */
import type { Delivery } from "../live/ways.js";
import { measureSideBySide, warmUpCost } from "../measure.js";
import { type BenchServers, withServers } from "../servers.js";
import {
  BenchFailure,
  type Measured,
  type Suite,
  type SuiteContext,
  type SuiteOutcome,
  type SuitePage,
} from "../suite.js";
import { Worker } from "../worker.js";
import type { TypedRequests, TypedWay } from "./process.js";

/** About as long as the messages are. */
const payloadBytes = 100;
const fullRounds = 7;
const quickRounds = 2;
const quickRunSeconds = 0.01;
const firstMessages = 5_000;
const arrivalTimeoutMs = 10_000;

const deliveries: readonly Delivery[] = ["at-most-once", "at-least-once"];
/** Ways of ours, each with its baselines. */
const comparisons: readonly { readonly ours: TypedWay; readonly baselines: readonly TypedWay[] }[] = [
  { ours: "typed send", baselines: ["raw", "protobuf-es, then send"] },
  { ours: "typed handler", baselines: ["raw", "protobuf-es in the handler"] },
];
const ways = [...new Set(comparisons.flatMap(({ ours, baselines }) => [ours, ...baselines]))];

const page: SuitePage = {
  title: "Typed messages",
  text: `One peer sends orders of about 100 bytes to another as fast as that takes them: six fields, five of them with rules.

- **typed send** is \`peer.send(schema, order)\`, which checks the rules and encodes, to a handler that only counts.
- **typed handler** is a handler of \`peer.handle(schema, …)\`, for which the message is decoded and checked. It was sent as raw
  bytes.
- \`raw\` is \`peer.send\` with the same bytes and the same header, encoded before the measurement, to the handler that counts.
- The others do by hand, with protobuf-es alone and without any rules, what the typed ones do.

What is in the way of the targets: \`raw\` handles a header once for all messages that share it, and so costs each side little
more than half a microsecond a message. To read three texts, a 64-bit integer, a double and a boolean out of bytes into an object
costs about as much again, in any program, and the garbage collector has to take each object away later. A profile has no part left that stands out.`,
  charts: [
    { title: "Typed send", results: deliveries.map((delivery) => `typed send, ${delivery}`) },
    { title: "Typed handler", results: deliveries.map((delivery) => `typed handler, ${delivery}`) },
  ],
};

/** The suite. */
export const typed: Suite = {
  name: "typed",
  summary: "messages/s that are typed, from one peer to another, beside the same bytes without types",
  seconds: 40,
  page,
  targets: comparisons.flatMap(({ ours }) =>
    deliveries.map((delivery) => ({ name: `${ours}, ${delivery}`, payloadBytes, baseline: "raw", atLeast: 0.9 })),
  ),
  run: (context) => withServers(context, (servers) => measure(context, servers)),
};

async function measure(context: SuiteContext, { databaseUrl }: BenchServers): Promise<Omit<SuiteOutcome, "servers">> {
  const { signal, say, endBy, quick } = context;
  say("Starting the publishing and the handling process");
  const program = new URL("./process.ts", import.meta.url);
  const handling = Worker.start<TypedRequests>("handling", program, { source: context.source });
  const publishing = Worker.start<TypedRequests>("publishing", program, { source: context.source });
  try {
    await handling.request("handle", { databaseUrl });
    await publishing.request("connect", { databaseUrl });
    const rounds = quick ? quickRounds : context.rounds(fullRounds);
    const secondsPerRun = quick
      ? quickRunSeconds
      : (endBy - performance.now()) / 1000 / (ways.length * deliveries.length) / (rounds + warmUpCost);
    const results: Measured[] = [];
    for (const delivery of deliveries) {
      say(`Measuring ${delivery}`);
      const rates = await measureSideBySide(
        ways.map((way) => ({ name: way, run: (messages) => sendAll(way, delivery, messages) })),
        { rounds, secondsPerRun, firstAmount: firstMessages, signal },
      );
      for (const { ours, baselines } of comparisons) {
        results.push({
          name: `${ours}, ${delivery}`,
          payloadBytes,
          unit: "messages/s",
          better: "higher",
          samples: rates.get(ours)!,
          baselines: baselines.map((name) => ({ name, samples: rates.get(name)! })),
        });
      }
    }
    return { results, notes: [] };
  } finally {
    await publishing.stop();
    await handling.stop();
  }

  async function sendAll(way: TypedWay, delivery: Delivery, messages: number): Promise<number> {
    await handling.request("expect", messages);
    const { beganMs, doneMs } = await publishing.request("send", { way, delivery, messages });
    const arrived = await handling.request("arrived", arrivalTimeoutMs);
    if (arrived.completeMs === undefined) {
      throw new BenchFailure(`${way}, ${delivery}: ${arrived.messages} of ${messages} messages have arrived`);
    }
    return (Math.max(arrived.completeMs, doneMs) - beganMs) / 1000;
  }
}
