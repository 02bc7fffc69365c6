/**
 * Slow tests in a file of the fast tier. `npm test` leaves them out; `npm run test:slow` runs each file that imports this one as
 * a whole.
 */
import { describe, it } from "vitest";

const isSlow = process.env["HAWSER_TEST_TIER"] !== "fast";

const none = () => undefined;
const nothing = Object.assign(none, { each: () => none, concurrent: none });

/** `it` of the slow tier. */
export const slowIt = isSlow ? it : (nothing as unknown as typeof it);

/** `describe` of the slow tier. */
export const slowDescribe = isSlow ? describe : (nothing as unknown as typeof describe);
