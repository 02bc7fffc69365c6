/**
 * What the owner of the metrics fills: plain numbers, which are read whenever `/metrics` is asked for. So counting costs an
 * increment and nothing else; the objects may be the live ones, and their fields may be getters.
 *
 * What is called a total begins at zero with the process (or with its subscription or responder) and never falls.
 */
import type { BridgeStats } from "../../bridge/index.js";

/** The connections to NATS, each with a use of its own. */
export const natsClients = ["gateway", "subscriptions", "responders", "outbox", "streams"] as const;

/** One of {@link natsClients}. */
export type NatsClient = (typeof natsClients)[number];

/** Everything. What is not there yet, or not used, is undefined. */
export interface ServeCounters {
  readonly gateway: GatewayCounters | undefined;
  readonly postgres: ConnectionCounters;
  readonly nats: { readonly [Client in NatsClient]?: ConnectionCounters | undefined };
  readonly bridge: BridgeStats | undefined;
  readonly stored: StoredCounters | undefined;
}

/** Messages in the database, as last counted there; each process counts all. */
export interface StoredCounters {
  readonly waiting: Iterable<{
    /** `nats` or `peer`. */
    readonly kind: string;
    /** Messages of the outbox that have not been relayed, up to a limit. */
    readonly messages: number;
    /** When the oldest of them was enqueued, by `performance.now()`; undefined: there is none. */
    readonly oldestAt: number | undefined;
  }>;
  readonly deadLetters: Iterable<{
    /** `peer`, `subscription` or `outbox`. */
    readonly origin: string;
    /** Dead letters of the last `recentMs`, up to a limit. */
    readonly messages: number;
  }>;
}

/** The gateway. Its calls are reported one by one: `ServeMetrics.observeCall`. */
interface GatewayCounters {
  /** Database sessions that are connected now. */
  readonly sessions: number;
  /** Time of the last call that reached no gateway of the database, in seconds since 1970; undefined: none is known. */
  readonly unreachedAt: number | undefined;
}

/** A connection that is made again when it is lost. */
export interface ConnectionCounters {
  readonly isUp: boolean;
  /** Total: how often it was made again. The first time does not count. */
  readonly reconnects: number;
}
