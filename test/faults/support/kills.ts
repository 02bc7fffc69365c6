/**
 * Number of kills, random seed and time limits of the kill loops.
 */

/**
 * The share of one of `loops` loops in HAWSER_FAULT_KILLS (default 10: enough to see that it works; the full proof is
 * 200 and more).
 */
export function killsPerLoop(loops: number): number {
  const total = Number(process.env["HAWSER_FAULT_KILLS"] ?? 10);
  if (!Number.isSafeInteger(total) || total < loops) {
    throw new Error(`HAWSER_FAULT_KILLS is "${process.env["HAWSER_FAULT_KILLS"]}"; it must be ${loops} or more`);
  }
  return Math.ceil(total / loops);
}

/** Seed of a run's random choices: HAWSER_FAULT_SEED, or a new one for each run. */
export const faultSeed = Number(process.env["HAWSER_FAULT_SEED"] ?? Date.now() % 1_000_000);

/** Ends all sessions of the database but its own. */
export const endSessionsSql = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`;

/** Time limit in milliseconds for a test that starts some processes, sized for slow machines. */
export const patienceMs = 180_000;

/** Time limit of a kill loop, in milliseconds. */
export function loopTimeoutMs(kills: number): number {
  return patienceMs + kills * 20_000;
}

/** Fault times in milliseconds, in words. */
export function spread(times: readonly number[]): string {
  const sorted = [...times].sort((one, other) => one - other);
  const at = (share: number): string =>
    `${Math.round(sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN)} ms`;
  return `median ${at(0.5)}, longest ${at(1)}`;
}
