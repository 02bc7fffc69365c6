/**
 * How slow the machine is meanwhile: with other work beside it, it is given that much more time.
 */
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";

/** Asks Postgres again and again until it is so. @returns the longest that an answer took, in milliseconds */
export async function slowestAnswer(databaseUrl: string, what: string, isSo: () => boolean): Promise<number> {
  let slowestMs = 0;
  await eventually(what, async () => {
    const askedAt = performance.now();
    await rowsOf(databaseUrl, "SELECT");
    slowestMs = Math.max(slowestMs, performance.now() - askedAt);
    return isSo();
  });
  return slowestMs;
}
