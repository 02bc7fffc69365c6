/**
 * Work that is done at a steady pace, and how long it takes from each commit until something is seen of it.
 */
import { setTimeout as delay } from "node:timers/promises";
import { percentileUs } from "./measure.js";

/** Number of messages, and their rate. */
export interface Pace {
  readonly messages: number;
  readonly perSecond: number;
}

/** Percentiles in µs. */
export interface Latencies {
  readonly p50: number;
  readonly p99: number;
}

/**
 * Commits at a steady pace, over so many sessions in turn.
 *
 * @param commit commits the message of that number, from 0 on
 * @returns of each message when it was committed, in ms of `performance.now`
 */
export async function paced(
  { messages, perSecond }: Pace,
  sessions: number,
  commit: (number: number, session: number) => Promise<unknown>,
): Promise<Float64Array> {
  const committedAt = new Float64Array(messages);
  const before: Promise<unknown>[] = Array.from({ length: sessions }, () => Promise.resolve());
  const began = performance.now();
  for (let number = 0; number < messages; number++) {
    const waitMs = began + (number * 1000) / perSecond - performance.now();
    if (waitMs > 0) await delay(waitMs);
    const session = number % sessions;
    before[session] = before[session]!.then(async () => {
      await commit(number, session);
      committedAt[number] = performance.now();
    });
  }
  await Promise.all(before);
  return committedAt;
}

/** Latencies from commit to arrival. A message that arrived before the client had read the commit's result counts as 0. */
export function latenciesOf(committedAt: Float64Array, arrivedAt: Float64Array): Latencies {
  const took = arrivedAt.map((at, number) => Math.max(0, at - committedAt[number]!)).sort();
  return { p50: percentileUs(took, 0.5), p99: percentileUs(took, 0.99) };
}
