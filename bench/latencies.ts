/**
 * Measures latency and throughput of request-reply exchanges, alone and with others in flight. Shared by the suites that
 * measure requests.
 */
import { measureSideBySide, percentileUs, warmUpCost } from "./measure.js";
import type { Measured, SuiteContext } from "./suite.js";

const fullRounds = 7;
const quickRounds = 2;
const quickRunSeconds = 0.01;
const firstTimes = 50;

/** A run takes at least so long, also where installing baselines has taken the suite's time. */
const minRunSeconds = 0.3;

/** The warm-up of each way: connect-es and grpc-js answer about twice as many calls once they are hot. */
const warmUpSeconds = 3;

/** Latencies of one load: the total time in seconds, the percentiles of one exchange in µs. */
export interface Latencies {
  readonly seconds: number;
  readonly p50: number;
  readonly p99: number;
}

/** Asks so many times, in a worker: each loop asks again when its answer has come. */
export async function askInFlight(ask: () => unknown, times: number, inFlight: number): Promise<Latencies> {
  const took = new Float64Array(times);
  let asked = 0;
  const loop = async (): Promise<void> => {
    while (asked < times) {
      const number = asked++;
      const before = performance.now();
      await ask();
      took[number] = performance.now() - before;
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: inFlight }, loop));
  const seconds = (performance.now() - began) / 1000;
  took.sort();
  return { seconds, p50: percentileUs(took, 0.5), p99: percentileUs(took, 0.99) };
}

/** A way of ours and its baselines, at a number of exchanges in flight. */
export interface AskingComparison<Way extends string> {
  readonly ours: Way;
  readonly baselines: readonly Way[];
  readonly inFlight: number;
}

/** The variant of a result. */
export const inFlightVariant = (inFlight: number): string => `${inFlight} in flight`;

/** Measures all ways in turns. @param ask asks so many times, in a worker */
export async function measureLatencies<Way extends string>(
  context: SuiteContext,
  payloadBytes: number,
  comparisons: readonly AskingComparison<Way>[],
  ask: (way: Way, times: number, inFlight: number) => Promise<Latencies>,
): Promise<Measured[]> {
  const { signal, say, endBy, quick } = context;
  const count = quick ? quickRounds : context.rounds(fullRounds);
  const loads = new Map<string, { way: Way; inFlight: number; latencies: Latencies[] }>();
  const loadName = (way: Way, inFlight: number): string => `${way}, ${inFlightVariant(inFlight)}`;
  for (const { ours, baselines, inFlight } of comparisons) {
    for (const way of [ours, ...baselines]) loads.set(loadName(way, inFlight), { way, inFlight, latencies: [] });
  }
  say("Measuring");
  const secondsLeft = (endBy - performance.now()) / 1000;
  const rates = await measureSideBySide(
    [...loads].map(([name, { way, inFlight, latencies }]) => ({
      name,
      run: async (times) => {
        const measured = await ask(way, times, inFlight);
        latencies.push(measured);
        return measured.seconds;
      },
    })),
    {
      rounds: count,
      secondsPerRun: quick ? quickRunSeconds : Math.max(minRunSeconds, secondsLeft / loads.size / (count + warmUpCost)),
      firstAmount: firstTimes,
      warmUpSeconds: quick ? 0 : warmUpSeconds,
      signal,
    },
  );
  return comparisons.flatMap(({ ours, baselines, inFlight }) => {
    const result = (
      what: string,
      of: Pick<Measured, "unit" | "better">,
      samplesOf: (load: string) => readonly number[],
    ): Measured => ({
      name: `${ours}, ${what}`,
      payloadBytes,
      variant: inFlightVariant(inFlight),
      ...of,
      samples: samplesOf(loadName(ours, inFlight)),
      baselines: baselines.map((name) => ({ name, samples: samplesOf(loadName(name, inFlight)) })),
    });
    // The first ones were the warm-up.
    const measured = (load: string) => loads.get(load)!.latencies.slice(-count);
    return [
      ...(["p50", "p99"] as const).map((percentile) =>
        result(percentile, { unit: "µs", better: "lower" }, (load) => measured(load).map((each) => each[percentile])),
      ),
      result("calls", { unit: "calls/s", better: "higher" }, (load) => rates.get(load)!),
    ];
  });
}
