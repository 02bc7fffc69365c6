/**
 * The suites that `npm run bench` knows.
 */
import { peerLive } from "./peer-live/peer-live.js";
import type { Suite } from "./suite.js";

/** In the order in which the help lists them. */
export const suites: readonly Suite[] = [peerLive];
