/**
 * What the owner of the metrics fills: plain numbers, which are read whenever `/metrics` is asked for. So counting costs an
 * increment and nothing else; the objects may be the live ones, and their fields may be getters.
 *
 * What is called a total begins at zero with the process (or with its subscription or responder) and never falls.
 */

/** The connections to NATS, each with a use of its own. */
export const natsClients = ["gateway", "subscriptions", "responders", "outbox", "streams"] as const;

/** One of {@link natsClients}. */
export type NatsClient = (typeof natsClients)[number];

/** What Postgres is, as far as this process knows. */
export const databaseRoles = ["primary", "standby", "unknown"] as const;

/** One of {@link databaseRoles}. */
type DatabaseRole = (typeof databaseRoles)[number];

/** Everything. What is not there yet, or not used, is undefined. */
export interface ServeCounters {
  readonly gateway: GatewayCounters | undefined;
  readonly postgres: ConnectionCounters;
  readonly nats: { readonly [Client in NatsClient]?: ConnectionCounters | undefined };
  readonly bridge: BridgeCounters | undefined;
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

/** Subscriptions and responders of this process. */
export interface BridgeCounters {
  readonly role: DatabaseRole;
  /** This process runs the subscribed functions. */
  readonly isLeading: boolean;
  /** The leader's epoch that this process has or last had; 0 if it never led. */
  readonly leaderEpoch: number;
  /** What is kept, while another process leads, to be repeated at a takeover, in bytes. */
  readonly standbyBufferBytes: number;
  /** Total: messages that were given up because the queues had reached their limit, whatever their subscription. */
  readonly discardedBufferFull: number;
  /** Total: messages that were missing at takeovers because what is kept for them had reached its limit. */
  readonly discardedStandbyBufferFull: number;
  /** Those that there are now. Whichever is missing loses its series. */
  readonly subscriptions: Iterable<SubscriptionCounters>;
  /** Those that there are now. Whichever is missing loses its series. */
  readonly responders: Iterable<ResponderCounters>;
  /** Subscriptions to streams; none while another process leads. */
  readonly streams: Iterable<StreamCounters>;
  /** Requests whose function runs now. */
  readonly requestsInFlight: number;
  /** Requests that wait for their turn. */
  readonly requestsQueued: number;
  readonly outbox: OutboxCounters;
}

/** The outbox for NATS, as the process that leads relays it. */
interface OutboxCounters {
  /** Messages that were read, and are neither published nor dead letters. */
  readonly waiting: number;
  /** When the oldest of them was enqueued; undefined: there is none. */
  readonly oldestAt: Date | undefined;
  /** When the position moved last, by `performance.now()`; undefined: nothing waits. */
  readonly positionAt: number | undefined;
  /** Total: messages that were published. */
  readonly relayed: number;
  /** Total: messages that NATS has refused, and that became dead letters. */
  readonly refused: number;
  /** Total: of those published, the ones that `hawser.outbox_replay` has written again, and their streams have stored again. */
  readonly replayed: number;
  /** Total: of those published, the ones that their streams have dropped, because of another message with the same id. */
  readonly dropped: number;
}

/** A function that NATS calls: which one it is, for labels. */
export interface BoundFunction {
  readonly id: bigint;
  /** What it is subscribed to, or answers; may hold wildcards. Never the subject of a message, of which there is no end. */
  readonly subject: string;
  /** As people know it: `public.capture(bytea)`. */
  readonly functionName: string;
}

/** A subscription: what waits now, and totals. */
export interface SubscriptionCounters extends BoundFunction {
  /** Messages that are neither committed nor in dead_letters yet. */
  readonly queuedMessages: number;
  /** What these messages count for where memory is limited, in bytes. */
  readonly queuedBytes: number;
  /** When the oldest of them was received, by `performance.now()`; undefined: there is none. */
  readonly oldestReceivedAt: number | undefined;
  /** Messages of it in the table of saved ones, as far as the process that leads knows. */
  readonly savedMessages: number;
  /** What these count for against `saved_bytes`. */
  readonly savedBytes: number;
  /** Messages that NATS delivered to this process, whether it leads or not. */
  readonly received: number;
  /** Messages whose transaction this process committed, without those in dead_letters. */
  readonly committed: number;
  /** Messages that failed for good and went to dead_letters. */
  readonly deadLettered: number;
  /** Messages taken from the standby buffer at a takeover: another process may have handled them. */
  readonly repeated: number;
  /** How often the connection to NATS was lost while this process led. */
  readonly cuts: number;
  /** Transactions with its messages, whatever became of them. */
  readonly transactions: number;
  /** Batches that were halved because one of their messages failed. */
  readonly bisections: number;
}

/** A responder, in totals of requests. */
export interface ResponderCounters extends BoundFunction {
  /** The function has answered. */
  readonly ok: number;
  /** The function has failed, or could not be run, in another way than those below. */
  readonly failed: number;
  /** Its time, `responder_timeout_ms`, was over, waiting or running. */
  readonly timedOut: number;
  /** There was no place left to wait. */
  readonly busy: number;
}

/** A subscription to a stream. */
export interface StreamCounters {
  /** Its name. */
  readonly name: string;
  readonly stream: string;
  readonly functionName: string;
  /** Messages of the stream that are not done. */
  readonly lag: number;
  /** All messages up to this sequence number are done. */
  readonly position: number;
  /** Messages that were gone before they could be taken, since the last nats_seek_stream. */
  readonly missing: number;
  /** Messages come, or would if there were any. */
  readonly isReading: boolean;
  /** Total: messages whose transaction this process committed. */
  readonly committed: number;
  /** Total: messages that failed for good and went to dead_letters. */
  readonly deadLettered: number;
}
