/**
 * Measures ways of getting messages from one process to another side by side, for each payload size.
 */
import { type Contender, measureSideBySide, warmUpCost } from "../side-by-side.js";
import type { Measured, SuiteContext, SuiteOutcome } from "../suite.js";
import { formatBytes, formatValue } from "../tables.js";
import type { ProcessPair } from "./process-pair.js";
import type { WayName } from "./ways.js";

const payloadSizes = [10, 100, 1024, 64 * 1024];

/** Runs that count. */
const rounds = { full: 7, quick: 2 };

/** Bounds of one run: shorter ones measure noise, longer ones nothing more. */
const minRunSeconds = 0.05;
const maxRunSeconds = 0.5;
const quickRunSeconds = 0.01;

/** What a warm-up begins with. */
const firstBytes = 4 << 20;
const firstMessages = 5_000;

/** What is measured. */
export interface WaysPlan {
  /** The ways through the pair. */
  readonly ways: readonly WayName[];
  /** Contenders of other kinds: what they do is messages, too. */
  readonly others?: (payloadBytes: number) => readonly Contender[];
  /** Ours, and what each is compared with. */
  readonly results: readonly { readonly name: WayName; readonly baselines: readonly string[] }[];
}

interface Confirmed {
  messages: number;
  stored: number;
}

/** Measures what the plan says. */
export async function measureWays(
  { signal, say, endBy, quick }: SuiteContext,
  pair: ProcessPair,
  { ways, others = () => [], results }: WaysPlan,
): Promise<Omit<SuiteOutcome, "servers">> {
  const measured: Measured[] = [];
  const notes: string[] = [];
  const sizes = quick ? payloadSizes.slice(1, 2) : payloadSizes;
  for (const [index, payloadBytes] of sizes.entries()) {
    const confirmed = { messages: 0, stored: 0 };
    const contenders = [...ways.map((way) => contender(pair, way, payloadBytes, confirmed)), ...others(payloadBytes)];
    const count = quick ? rounds.quick : rounds.full;
    const secondsLeft = (endBy - performance.now()) / 1000 / (sizes.length - index);
    say(`Measuring ${formatBytes(payloadBytes)}`);
    const rates = await measureSideBySide(contenders, {
      rounds: count,
      secondsPerRun: quick ? quickRunSeconds : clamp(secondsLeft / contenders.length / (count + warmUpCost)),
      firstAmount: Math.max(1, Math.min(firstMessages, Math.floor(firstBytes / payloadBytes))),
      signal,
    });
    for (const { name, baselines } of results) {
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
  return { results: results.flatMap(({ name }) => measured.filter((each) => each.name === name)), notes };
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
