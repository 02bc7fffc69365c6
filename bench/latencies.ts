/**
 * How long one exchange takes when nothing else is under way: what suites that ask for one thing at a time share.
 */
import { measureSideBySide, percentileUs, warmUpCost } from "./measure.js";
import type { Measured, SuiteContext } from "./suite.js";

const fullRounds = 7;
const quickRounds = 2;
const quickRunSeconds = 0.01;
const firstTimes = 50;

/** How long the exchanges of one load took, in µs. */
export interface Latencies {
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
}

/** Asks so many times, and the next time when the answer has come: in a worker. */
export async function askInTurn(ask: () => unknown, times: number): Promise<Latencies> {
  const took = new Float64Array(times);
  const began = performance.now();
  for (let i = 0, before = began; i < times; i++) {
    await ask();
    const now = performance.now();
    took[i] = now - before;
    before = now;
  }
  const seconds = (performance.now() - began) / 1000;
  took.sort();
  return { seconds, p50: percentileUs(took, 0.5), p99: percentileUs(took, 0.99) };
}

/** Ours, and what it is compared with. */
export interface AskingComparison<Way extends string> {
  readonly ours: Way;
  readonly baselines: readonly Way[];
}

/** Measures all ways in turns. @param ask asks so many times, in a worker */
export async function measureLatencies<Way extends string>(
  context: SuiteContext,
  payloadBytes: number,
  comparisons: readonly AskingComparison<Way>[],
  ask: (way: Way, times: number) => Promise<Latencies>,
): Promise<Measured[]> {
  const { signal, say, endBy, quick } = context;
  const count = quick ? quickRounds : context.rounds(fullRounds);
  const ways = [...new Set(comparisons.flatMap(({ ours, baselines }) => [ours, ...baselines]))];
  const latencies = new Map<Way, Latencies[]>(ways.map((way) => [way, []]));
  say("Measuring");
  const secondsLeft = (endBy - performance.now()) / 1000;
  await measureSideBySide(
    ways.map((way) => ({
      name: way,
      run: async (times) => {
        const measured = await ask(way, times);
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
  return comparisons.flatMap(({ ours, baselines }) =>
    (["p50", "p99"] as const).map((percentile): Measured => {
      // The first ones were the warm-up.
      const samplesOf = (way: Way) =>
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
        baselines: baselines.map((name) => ({ name, samples: samplesOf(name) })),
      };
    }),
  );
}
