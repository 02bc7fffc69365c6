/**
 * Global set-up for vitest: starts the servers before the first test, and stops them when vitest ends.
 *
 * export default defineConfig({ test: { globalSetup: "hawser/testing/vitest" } });
 */
import { keeperOfRun } from "./connect-keeper.js";
import { runVariable } from "./run.js";

export async function setup(): Promise<() => Promise<void>> {
  // For workers, because not all of them are children of this process.
  process.env[runVariable] = String(process.pid);
  const keeper = await keeperOfRun();
  return async () => {
    delete process.env[runVariable];
    await keeper.call("stop");
    await keeper.ended;
  };
}
