import { protocolConstants } from "../../../generated/ts/settings/peer.js";

/** A silent fault is noticed within this time. */
export const detectionLimitMs = 30_000;

/** What the rule of pings comes to: nothing was heard for so long. */
export const silenceMs = protocolConstants.pingAfterMs + protocolConstants.pingTimeoutMs;
