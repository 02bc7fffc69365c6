/** Saved position of a relay, and the message fields that relays use. */

/** Snapshot in the text form of `pg_snapshot`: `xmin:xmax:xip,…`. */
export type Snapshot = string;

/** Position up to which the messages of a series are done. */
interface SnapshotRange {
  /** Snapshot all of whose messages are done. */
  readonly from: Snapshot;
  /**
   * Snapshot at the end of the oldest unfinished set. The set contains what `to` sees and `from` does not. Undefined if
   * no set was started.
   */
  readonly to: Snapshot | undefined;
  /** Last id up to which all messages of that set are done. */
  readonly after: bigint;
}

/** Position of the messages of a role, or of one route of a role. */
export interface SeriesPosition extends SnapshotRange {
  readonly role: string;
  /** Undefined for all routes that have no series of their own. */
  readonly route: string | undefined;
}

/** Position of all messages: of those that belong to no series, and of each series. */
export interface OutboxPosition extends SnapshotRange {
  readonly series: readonly SeriesPosition[];
  /** Messages beyond the position that are already dead letters. */
  readonly skipped: readonly bigint[];
}

/** Reason why NATS refuses a message. */
export interface PublishRefusal {
  readonly code: string;
  readonly message: string;
}

/** Message of the outbox. */
export interface OutboxMessage {
  /** Id, which increases; within a lane in commit order. */
  readonly id: bigint;
  /** Database role that enqueued the message. */
  readonly role: string;
  /** Part of NATS that can be unavailable on its own: a JetStream domain or the destination. */
  readonly route: string;
  /**
   * Queue of messages that are published one at a time, in the order of ids. All have one role and route. Undefined for
   * a message without a key.
   */
  readonly lane: string | undefined;
  /** Subject. After a refusal, further messages to the same subject are likely to be refused too. */
  readonly destination: string;
  /** Memory of the message in bytes. */
  readonly bytes: number;
  /** Latest possible enqueue time, by the clock of the relay. */
  readonly enqueuedBy: number;
  /**
   * Id of the original message if this is a replay, which is enqueued because the stream may have lost the original.
   */
  readonly copyOf: bigint | undefined;
  /** Refusal of an oversized message, which is known before, so that the message is not published. */
  readonly refusal: PublishRefusal | undefined;
}
