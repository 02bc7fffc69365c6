/**
 * The fence of a name, for transactions that are made of several statements. (The functions `hawser.store_messages` and
 * `hawser.commit_cursors` hold the same rule within themselves.)
 */
import { tables } from "../../generated/ts/rows/peer.js";

/** Who writes: a name, and the epoch in which the writer took it. A Lease is one. */
export interface WriterName {
  readonly name: string;
  readonly epoch: number;
}

/** The two statements with which a fenced transaction begins, in this order. */
export const fenceSql = {
  /** Waits for whoever is taking the name, and makes the next one wait. $1: the name. */
  lock: "SELECT pg_advisory_xact_lock_shared(hashtextextended('hawser:fence:' || $1::text, 0))",
  /** One row while the epoch is the catalog's. $1: the name, $2: the epoch. */
  check: `SELECT FROM ${tables.peerName} WHERE name = $1 AND epoch = $2`,
} as const;

/** The key of a name's lease lock, as an SQL expression over $1, the name. */
export const leaseLockKey = "hashtextextended('hawser:lease:' || $1::text, 0)";
