import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until the check holds, looking every few milliseconds; for what announces itself by no event, such as the end of
 * somebody else's process. Throws when it does not hold within the deadline, which is for what hangs: it is only shorter than
 * the time limit of a test.
 */
export async function eventually(
  what: string,
  check: () => boolean | Promise<boolean>,
  deadlineMs = 150_000,
): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`Within ${deadlineMs} ms it did not happen that ${what}.`);
    await delay(10);
  }
}
