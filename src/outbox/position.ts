/** What a relay saves, and what it knows of a message. */

/** A snapshot as `pg_snapshot` is written: `xmin:xmax:xip,…`. */
export type Snapshot = string;

/** Up to where the messages of a series are done. */
interface Place {
  /** Everything that it sees is done. */
  readonly from: Snapshot;
  /** The oldest set that is not done is what this sees and `from` does not; undefined: none was begun. */
  readonly to: Snapshot | undefined;
  /** Of that set everything is done up to this id. */
  readonly after: bigint;
}

/** The place of the messages of a role, or of one route of a role. */
export interface SeriesPosition extends Place {
  readonly role: string;
  /** undefined: all routes that have no series of their own. */
  readonly route: string | undefined;
}

/** Up to where everything is done: of the messages that belong to no series, and of each series. */
export interface OutboxPosition extends Place {
  readonly series: readonly SeriesPosition[];
  /** Of what is behind that: messages that are dead letters already. */
  readonly skipped: readonly bigint[];
}

/** Why NATS does not take a message. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
}

/** A message of the outbox. */
export interface OutboxMessage {
  /** Grows; within a lane in the order of commits. */
  readonly id: bigint;
  /** The database role that has enqueued it. */
  readonly role: string;
  /** Where it goes to, as far as one part of NATS can be away while others are there: a JetStream domain, or the destination. */
  readonly route: string;
  /** What is published one by one, in the order of ids, all of one role and route; undefined: the message has no key. */
  readonly lane: string | undefined;
  /** Where it goes to: what is refused for one message may be refused for the next. */
  readonly destination: string;
  /** Its memory. */
  readonly bytes: number;
  /** When it was enqueued, at the latest, by the clock of the relay. */
  readonly enqueuedBy: number;
  /** It was written again, because its stream may have lost it: the id of the first one. */
  readonly copyOf: bigint | undefined;
  /** It is known that NATS would refuse it, as too large: it is not published. */
  readonly refusal: Refusal | undefined;
}
