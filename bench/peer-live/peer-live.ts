/**
 * The suite `peer-live`: messages from one process to another over a live connection, against a hand-written socket and
 * against NATS. Three processes take part: this one only gives orders.
 */
import { startDevStack } from "../../src/dev/index.js";
import { type BenchDatabase, createBenchDatabase } from "../bench-database.js";
import { type Contender, measureSideBySide, warmUpCost } from "../side-by-side.js";
import type { Measured, Suite, SuiteContext, SuiteOutcome } from "../suite.js";
import { formatBytes, formatValue } from "../tables.js";
import { ProcessPair } from "./process-pair.js";
import { type Servers, type WayName, wayNames } from "./ways.js";

const payloadSizes = [10, 100, 1024, 64 * 1024];

/** Ours, and what each is compared with: NATS and a bare socket, and at least once also with at most once. */
const results: readonly { readonly name: WayName; readonly baselines: readonly WayName[] }[] = [
  { name: "at-most-once", baselines: ["tcp", "nats-core"] },
  { name: "at-least-once", baselines: ["tcp", "nats-core", "at-most-once"] },
];

const rounds = 7;

/** Bounds of one run: shorter ones measure noise, longer ones nothing more. */
const minRunSeconds = 0.05;
const maxRunSeconds = 0.5;

/** What a warm-up begins with. */
const firstBytes = 4 << 20;
const firstMessages = 5_000;

/** The suite. */
export const peerLive: Suite = {
  name: "peer-live",
  summary: "messages/s from one process to another, at most once and at least once, beside plain TCP and NATS",
  async run(context) {
    const { signal, say } = context;
    const stack = await startDevStack({ onProgress: say, signal });
    try {
      const database = await createBenchDatabase(stack.databaseUrl);
      try {
        return await measure(context, { databaseUrl: database.url, natsUrl: stack.natsUrl! });
      } finally {
        await drop(database, context);
      }
    } finally {
      await stack.stop({ immediately: true });
    }
  },
};

async function measure(context: SuiteContext, servers: Servers): Promise<SuiteOutcome> {
  const { signal, say, endBy } = context;
  say("Starting the sending and the receiving process");
  const pair = await ProcessPair.start(servers);
  try {
    const measured: Measured[] = [];
    const notes: string[] = [];
    for (const [index, payloadBytes] of payloadSizes.entries()) {
      const stored = { messages: 0, stored: 0 };
      const contenders = wayNames.map((way) => contender(pair, way, payloadBytes, stored));
      const secondsLeft = (endBy - performance.now()) / 1000 / (payloadSizes.length - index);
      say(`Measuring ${formatBytes(payloadBytes)}`);
      const rates = await measureSideBySide(contenders, {
        rounds,
        secondsPerRun: clamp(secondsLeft / wayNames.length / (rounds + warmUpCost)),
        firstAmount: Math.max(1, Math.min(firstMessages, Math.floor(firstBytes / payloadBytes))),
        signal,
      });
      measured.push(...results.map(({ name, baselines }) => measuredOf(name, baselines, payloadBytes, rates)));
      notes.push(noteOf(payloadBytes, stored));
    }
    await pair.checkSurplus();
    // By result, as people compare them, not by size.
    return { results: results.flatMap(({ name }) => measured.filter((each) => each.name === name)), notes };
  } finally {
    await pair.stop();
  }
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

function measuredOf(
  name: WayName,
  baselines: readonly WayName[],
  payloadBytes: number,
  rates: ReadonlyMap<string, number[]>,
): Measured {
  return {
    name,
    payloadBytes,
    unit: "messages/s",
    better: "higher",
    samples: rates.get(name)!,
    baselines: baselines.map((baseline) => ({ name: baseline, samples: rates.get(baseline)! })),
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

/** A database that stays on a server of our own goes with it. */
async function drop(database: BenchDatabase, { say }: SuiteContext): Promise<void> {
  try {
    await database.drop();
  } catch (error) {
    say(`Could not drop the database of this run: ${(error as Error).message}`);
  }
}
