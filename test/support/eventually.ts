import { setTimeout as delay } from "node:timers/promises";
import { keepingConnections } from "./on-server.js";

/** Set for the fast tier, whose tests end sooner: `vitest.config.ts`. */
const patienceMs = Number(process.env["HAWSER_TEST_PATIENCE_MS"] ?? 150_000);

/**
 * Waits until the check holds: looks again after 10 ms at first, and after 50 ms when a second has passed, since a check
 * takes its part of the processor from what it waits for. It is for what announces itself by no event, such as the end of
 * somebody else's process. Throws when it does not hold within the deadline, which is for what hangs: it is only shorter
 * than the time limit of a test.
 */
export async function eventually(
  what: string,
  check: () => boolean | Promise<boolean>,
  deadlineMs = patienceMs,
): Promise<void> {
  const begunAt = Date.now();
  await keepingConnections(async () => {
    while (!(await check())) {
      const elapsedMs = Date.now() - begunAt;
      if (elapsedMs > deadlineMs) throw new Error(`Within ${deadlineMs} ms it did not happen that ${what}.`);
      await delay(Math.min(50, 10 + elapsedMs / 25));
    }
  });
}
