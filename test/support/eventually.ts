import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until the check holds, looking every few milliseconds; for what announces itself by no event, such as the end of
 * somebody else's process. Throws when it does not hold within the deadline.
 */
export async function eventually(
  what: string,
  check: () => boolean | Promise<boolean>,
  deadlineMs = 60_000,
): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`Within ${deadlineMs} ms it did not happen that ${what}.`);
    await delay(10);
  }
}
