/**
 * Faults, one after another, under a workload.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../../simulator/random.js";
import type { OwnPostgres } from "./own-postgres.js";

/** Makes a fault, and resolves when what it hit is there again. May return what it has done. */
export type Fault = () => Promise<unknown>;

/** Faults of a storm by their kind, and what happens between two. */
interface StormOptions {
  readonly random: Random;
  /** Number of faults. */
  readonly count: number;
  readonly faults: Readonly<Record<string, Fault>>;
  /** Resolves when the next fault meets something that is under way. */
  readonly progress: () => Promise<void>;
}

/** Makes the faults: each kind before one comes again. @returns how many there were of each kind */
export async function storm({ random, count, faults, progress }: StormOptions): Promise<Record<string, number>> {
  const made: Record<string, number> = {};
  const begunAt = performance.now();
  let deck: string[] = [];
  for (let nth = 1; nth <= count; nth++) {
    await progress();
    if (deck.length === 0) deck = shuffled(random, Object.keys(faults));
    const kind = deck.pop()!;
    made[kind] = (made[kind] ?? 0) + 1;
    const words = await faults[kind]!();
    const seconds = Math.round((performance.now() - begunAt) / 1_000);
    console.log(`${seconds} s: fault ${nth} of ${count}, ${typeof words === "string" ? words : kind}`);
  }
  return made;
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const rest = [...items];
  return items.map(() => rest.splice(random.between(0, rest.length - 1), 1)[0]!);
}

/** Kills Postgres, and starts it again after a while. */
export async function restartPostgres(
  postgres: OwnPostgres,
  signal: "SIGKILL" | "SIGQUIT" = "SIGKILL",
  awayMs = 0,
): Promise<void> {
  await postgres.kill(signal);
  await delay(awayMs);
  await postgres.start();
}
