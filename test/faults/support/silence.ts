import { protocolConstants } from "../../../generated/ts/settings/peer.js";

/** Ping settings of mesh processes: shorter than the defaults, so that tests wait less. */
export const shortPings: Partial<Record<keyof typeof protocolConstants, number>> = {
  pingAfterMs: 4_000,
  pingTimeoutMs: 3_000,
};

/** Time within which peers with the protocol's own ping settings detect a silent fault. */
export const detectionLimitMs = 30_000;

/** Silence after which such a peer gives up a connection. */
export const protocolSilenceMs = protocolConstants.pingAfterMs + protocolConstants.pingTimeoutMs;
