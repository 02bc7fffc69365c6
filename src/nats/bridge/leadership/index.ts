/**
 * Leadership: one of several processes, the leader, runs the subscriptions. The others keep messages, so that one of
 * them can take over.
 *
 * A row in Postgres names the leader: a random owner id, an epoch that grows with each takeover, a heartbeat counter,
 * and the leader's progress. This is the heartbeat strategy that `src/foundation/postgres/ownership.ts` describes; names of peers
 * use the strategy of a session with a token.
 *
 * A takeover has two steps (`protocol.ts`). The first writes the new epoch, if the row has not changed since it was
 * read: from then on no batch of an older epoch can start. The second raises the fence to the epoch. It waits for
 * batches of older epochs that are still running, and ends those that hang. Only then does the new leader run its first
 * batch. So commits of two leaders never interleave, even if one of them was suspended for a long time.
 *
 * A row may be taken when its owner has released it, or when its heartbeat has not changed for `leaderExpiryMs`, as
 * observed without a gap by the waiting process's own clock. Among several waiting processes, those that lack the
 * fewest unfinished messages go first. A leader that cannot reach Postgres remains the leader, unconfirmed: its batches
 * cannot run, and the fence decides when Postgres is back.
 *
 * All processes receive all messages. Waiting processes keep those that the leader may not have finished
 * (`takeover-buffer.ts`). Each heartbeat states a time before which everything is done. It is a time of the server's
 * clock, which all processes can read (`progress.ts` maps it to safe bounds of the local clock). After a takeover, the
 * kept messages are run again: a message may run twice around a takeover, and none is lost while one process that
 * received it lives.
 */
export { type Candidate, Leadership } from "./leadership.js";
export { fenceSql } from "./postgres-table.js";
export type { LeaderProgress } from "./progress.js";
export type { OthersHave, Unfinished } from "./protocol.js";
export { cleanTakeoverMs, type KeptMessage, TakeoverBuffer } from "./takeover-buffer.js";
