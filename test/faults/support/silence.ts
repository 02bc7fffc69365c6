import { protocolConstants } from "../../../generated/ts/settings/peer.js";

/** Of the processes of a mesh: less patience than all others have, so that tests need not wait as long. */
export const shortPings: Partial<Record<keyof typeof protocolConstants, number>> = {
  pingAfterMs: 4_000,
  pingTimeoutMs: 3_000,
};

/** A silent fault is noticed within this time by those who have the protocol's own patience. */
export const detectionLimitMs = 30_000;

/** What the rule of pings comes to for them. */
export const protocolSilenceMs = protocolConstants.pingAfterMs + protocolConstants.pingTimeoutMs;
