/**
 * Counters that the owner of the metrics provides: plain numbers, which are read at each scrape, so that counting costs
 * only an increment.
 *
 * A total begins at zero with the process (or with its subscription or responder) and never decreases.
 */
import { serveMetrics } from "../../../../generated/ts/metrics/metrics.js";
import type { BridgeStats } from "../../bridge/index.js";
import type { ServeStoredCounters } from "../periodic-counts.js";

/** Connections to NATS by their use. */
export const natsClients = serveMetrics.hawser_nats_up.values.client;

export type NatsClient = (typeof natsClients)[number];

/** All counters. A part that does not exist yet, or is not used, is undefined. */
export interface ServeCounters {
  readonly gateway: GatewayCounters | undefined;
  readonly postgres: ConnectionCounters;
  readonly nats: { readonly [Client in NatsClient]?: ConnectionCounters | undefined };
  readonly bridge: BridgeStats | undefined;
  /** Messages in the database, and its NOTIFY queue, at the last count; each process counts all of them, but one alone counts the backlog. */
  readonly stored: ServeStoredCounters | undefined;
}

/** Counters of the gateway. Its calls are reported individually: `ServeMetrics.observeCall`. */
interface GatewayCounters {
  /** Connected database sessions. */
  readonly sessions: number;
  /**
   * Time of the last call that reached no gateway of the database, in seconds since 1970; undefined if none is known.
   */
  readonly unreachedAt: number | undefined;
  /** Time at which its TLS certificate ends, in ms since 1970; undefined without TLS, or if it cannot be read. */
  readonly certificateEndsAt: number | undefined;
}

/** Connection that reconnects when it is lost. */
export interface ConnectionCounters {
  readonly isUp: boolean;
  /** Total of reconnects, without the first connection. */
  readonly reconnects: number;
}
