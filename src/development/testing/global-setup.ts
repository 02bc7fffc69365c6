/** Global set-up for vitest. */
import { keeperOfRun } from "./connect-keeper.js";
import { runVariable } from "./run.js";

/**
 * Starts the servers before the first test of a vitest run; resolves with the function that stops them. Vitest calls
 * both if its configuration names this entry point:
 *
 *     export default defineConfig({ test: { globalSetup: "hawser/testing" } });
 *
 * @throws HawserError `dev_server_failed`, `not_supported`
 */
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
