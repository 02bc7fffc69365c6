import { storeConstants } from "../../generated/ts/settings/peer.js";

/**
 * The wait before the store is tried again after `failures` failures in a row (1 or more): doubling from
 * `storeRetryMinMs` up to `storeRetryMaxMs`.
 */
export function retryDelayMs(failures: number): number {
  const { storeRetryMinMs, storeRetryMaxMs } = storeConstants;
  return Math.min(storeRetryMaxMs, storeRetryMinMs * 2 ** Math.max(0, failures - 1));
}
