/**
 * The suites `peer-live` and `peer-durable`: messages from one process to another over a live connection. Three processes
 * take part: this one only gives orders.
 */
import { type Contender, measureSideBySide, warmUpCost } from "../measure.js";
import { formatBytes, formatValue } from "../report.js";
import { natsVersion, withServers } from "../servers.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome, SuitePage } from "../suite.js";
import { batchesInFlight, batchMessages, publishesInFlight } from "./nats.js";
import { ProcessPair } from "./pair.js";
import { type Delivery, sinceNats, streamWays, type WayName } from "./ways.js";

const payloadSizes = [10, 100, 1024, 64 * 1024];

/** Runs that count. */
const fullRounds = 7;
const quickRounds = 2;

/** Bounds of one run: shorter ones measure noise, longer ones nothing more. */
const minRunSeconds = 0.05;
const maxRunSeconds = 0.5;
const quickRunSeconds = 0.01;

/** Upper bounds of the first warm-up run, in bytes and messages; the smaller one applies. */
const firstBytes = 4 << 20;
const firstMessages = 5_000;

/** Baselines of each delivery mode. */
type Comparisons = Readonly<Partial<Record<Delivery, readonly WayName[]>>>;

const livePage: SuitePage = {
  title: "Messages from one process to another",
  text: `One peer sends to another as fast as the other takes it, over loopback. The time of a run is from the first send
until the last message has been handled and every promise has settled.

- \`tcp\` is what one would write by hand with a socket and nothing else: a length before each message, gathered in
  blocks. The receiver only counts. It is the ceiling.
- \`nats-core\` is publish and subscribe of nats.js through a local nats-server: one hop more, no guarantee.
- At least once a message counts only when the listener's handler is done and that is committed in Postgres.

**What is in the way of TCP.** \`tcp\` only counts bytes. A message of ours has a promise for its sender. It
waits in a queue on both sides, and reaches its handler as an object with a topic and a number. In a profile of short
messages no part stands out: a quarter is the collector's, and no function has more than a twentieth. Long ones cost system
calls and one copy on each side, which cannot be left out: the caller may change the bytes when the promise has resolved,
and what was read is read over. Ours are as fast as \`tcp\` or faster there, because that reads as streams of Node do: memory is
allocated for each read, and the collector goes through the whole heap because of it. A larger young generation
(\`node --max-semi-space-size=64\`) saves the collector a part of its work with short messages, up to a fifth of the time; it is the
program's to set, and not set here.`,
  charts: [
    { title: "At most once", results: ["at-most-once"], scale: "logarithmic" },
    { title: "At least once", results: ["at-least-once"], scale: "logarithmic" },
  ],
};

const durablePage: SuitePage = {
  title: "At least once: what it costs, and JetStream",
  text: `The same two processes as above. An at-least-once message counts when the listener's handler is done *and* that is
committed in Postgres (fsync on). 8,192 messages are under way at a time, fewer than the default of
\`maxSendQueueMessages\` allows.

**The two promise different things.** While the listener is live, Hawser writes no payload anywhere: the message goes
from the sender's memory to the handler, and what Postgres commits is a cursor, one small row for very many messages.
What a sender has no receipt for is lost if it dies. JetStream writes every payload into a file, from which any number
of consumers can read it later; here nothing consumes, which would come on top. As configured by default, JetStream
acknowledges before the file is on the disk, and leaves that to the system; Postgres waits for it. How fast Hawser is
where it writes the payloads, too, is [below](#store-and-drain-100000-messages).

- \`jetstream\` publishes to a stream with file storage on a local nats-server, ${formatValue(publishesInFlight)} publishes under way at a time.
- \`jetstream batches\` publishes atomic batches of ${formatValue(batchMessages)} messages (fewer where they are long), ${batchesInFlight} batches under way at a
  time. A batch is stored as a whole, or not at all.
- \`jetstream fast ingest\` publishes one long batch that is not atomic, and that the server acknowledges from time to
  time.

All three count a message as soon as the server has acknowledged it, and check in the end that all are in the stream.

**What is in the way.** At least once costs a message a place in the sender's queue until it is acknowledged, and a position in
the listener, each an object for the collector, on top of what the section above says. Fast ingest leaves JavaScript
only to write: for 1 KiB and 64 KiB both sides of the comparison mostly copy bytes, and ours do it in two processes, because
the message arrives. Long messages do not wait for a commit: what is handled and not committed gives credit of its own, which the
sender is told as it grows.`,
  charts: [{ title: "At least once", results: ["at-least-once"], scale: "logarithmic" }],
};

/** The suite of what a connection takes. */
export const peerLive: Suite = {
  name: "peer-live",
  summary: "messages/s from one process to another, at most once and at least once, beside plain TCP and NATS",
  seconds: 40,
  page: livePage,
  targets: [
    { name: "at-most-once", payloadBytes: 100, baseline: "nats-core", atLeast: 3 },
    { name: "at-most-once", payloadBytes: 1024, baseline: "nats-core", atLeast: 3 },
    { name: "at-most-once", payloadBytes: 100, baseline: "tcp", atLeast: 0.5 },
    { name: "at-most-once", payloadBytes: 1024, baseline: "tcp", atLeast: 0.7 },
    { name: "at-most-once", payloadBytes: 64 * 1024, baseline: "tcp", atLeast: 0.9 },
  ],
  run: (context) =>
    measureWays(context, {
      "at-most-once": ["tcp", "nats-core"],
      "at-least-once": ["tcp", "nats-core", "at-most-once"],
    }),
};

/** The suite of what it costs that nothing is lost. */
export const peerDurable: Suite = {
  name: "peer-durable",
  summary: "messages/s at least once, beside three ways of publishing to JetStream and beside at most once",
  seconds: 60,
  page: durablePage,
  targets: [
    { name: "at-least-once", payloadBytes: 100, baseline: "at-most-once", atLeast: 0.5 },
    { name: "at-least-once", payloadBytes: 1024, baseline: "at-most-once", atLeast: 0.5 },
    { name: "at-least-once", payloadBytes: 64 * 1024, baseline: "at-most-once", atLeast: 0.5 },
    ...(["jetstream batches", "jetstream fast ingest"] as const).flatMap((baseline) => [
      { name: "at-least-once", payloadBytes: 100, baseline, atLeast: 15 },
      { name: "at-least-once", payloadBytes: 1024, baseline, atLeast: 10 },
      { name: "at-least-once", payloadBytes: 64 * 1024, baseline, atLeast: 3 },
    ]),
  ],
  run: (context) => measureWays(context, { "at-least-once": [...streamWays, "at-most-once"] }),
};

function measureWays(context: SuiteContext, wanted: Comparisons): Promise<SuiteOutcome> {
  return withServers(context, async (servers) => {
    const version = await natsVersion(servers.natsUrl);
    const asked = Object.values(wanted).flat();
    const leftOut = streamWays.filter((way) => asked.includes(way) && Number(version.split(".")[1]) < sinceNats[way]);
    const has = (way: WayName): boolean => !leftOut.some((other) => other === way);
    const comparisons: Comparisons = Object.fromEntries(
      Object.entries(wanted).map(([name, baselines]) => [name, baselines.filter(has)]),
    );
    const ours = Object.keys(comparisons) as Delivery[];
    const ways = [...new Set([...ours, ...ours.flatMap((name) => comparisons[name]!)])];
    context.say("Starting the sending and the receiving process");
    const pair = await ProcessPair.start(context, servers, ways);
    try {
      const outcome = await measurePair(context, pair, ways, comparisons);
      const notes = leftOut.map(
        (way) => `\`${way}\` is left out: it needs nats-server 2.${sinceNats[way]}, and this is ${version}.`,
      );
      return { ...outcome, notes: [...outcome.notes, ...notes] };
    } finally {
      await pair.stop();
    }
  });
}

async function measurePair(
  { signal, say, endBy, quick, rounds: roundsOf }: SuiteContext,
  pair: ProcessPair,
  ways: readonly WayName[],
  comparisons: Comparisons,
): Promise<Omit<SuiteOutcome, "servers">> {
  const measured: Measured[] = [];
  const notes: string[] = [];
  const sizes = quick ? payloadSizes.slice(1, 2) : payloadSizes;
  const rounds = quick ? quickRounds : roundsOf(fullRounds);
  for (const [index, payloadBytes] of sizes.entries()) {
    const confirmed = { messages: 0, stored: 0 };
    const secondsLeft = (endBy - performance.now()) / 1000 / (sizes.length - index);
    say(`Measuring ${formatBytes(payloadBytes)}`);
    const rates = await measureSideBySide(
      ways.map((way) => contender(pair, way, payloadBytes, confirmed)),
      {
        rounds,
        secondsPerRun: quick ? quickRunSeconds : clamp(secondsLeft / ways.length / (rounds + warmUpCost)),
        firstAmount: Math.max(1, Math.min(firstMessages, Math.floor(firstBytes / payloadBytes))),
        signal,
      },
    );
    for (const [name, baselines] of Object.entries(comparisons)) {
      measured.push({
        name,
        payloadBytes,
        unit: "messages/s",
        better: "higher",
        samples: rates.get(name)!,
        baselines: baselines.map((baseline) => ({ name: baseline, samples: rates.get(baseline)! })),
      });
    }
    notes.push(noteOf(payloadBytes, confirmed));
  }
  await pair.checkSurplus();
  // By result, as people compare them, not by size.
  return { results: Object.keys(comparisons).flatMap((name) => measured.filter((each) => each.name === name)), notes };
}

interface Confirmed {
  messages: number;
  stored: number;
}

/** A way with one payload size: an amount of work is that many messages. */
function contender(pair: ProcessPair, way: WayName, payloadBytes: number, confirmed: Confirmed): Contender {
  return {
    name: way,
    async run(messages) {
      const { seconds, stored } = await pair.send({ way, payloadBytes, messages });
      if (way === "at-least-once") {
        confirmed.messages += messages;
        confirmed.stored += stored;
      }
      return seconds;
    },
  };
}

/** A stored message went through Postgres as well: then the number says something else. */
function noteOf(payloadBytes: number, { messages, stored }: Confirmed): string {
  return (
    `at-least-once, ${formatBytes(payloadBytes)}: of ${formatValue(messages)} messages ` +
    `${formatValue(messages - stored)} were confirmed as delivered, ${formatValue(stored)} as stored`
  );
}

function clamp(seconds: number): number {
  return Math.min(maxRunSeconds, Math.max(minRunSeconds, seconds));
}
