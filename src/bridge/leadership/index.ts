/**
 * Which of several processes runs the subscriptions, and what the others keep to take over from it.
 *
 * One row in Postgres names the leader: a random owner, an epoch that grows with each takeover, a heartbeat, and how far
 * the leader has come. It is the strategy "a heartbeat" of {@link Ownership}; peers' names use the other one, a session.
 *
 * Taking leadership has two steps (`protocol.ts`). The first writes the new epoch, if the row is as it was seen: from then
 * on no batch of an older epoch begins. The second raises the fence to the epoch, which waits for batches that had begun
 * before, and ends those that hang. Only then the new leader runs its first batch. So nothing of two leaders is ever
 * committed in turns, however long one of them stood still.
 *
 * A row may be taken when its owner has given it back, or its heartbeat has not changed for `leaderExpiryMs`, seen without
 * a gap by the clock of the process that waits. Among several that wait, those that lack least of what is not done go first.
 * A leader that cannot reach Postgres stays it, unconfirmed: its batches cannot run, and the fence decides when Postgres is
 * back.
 *
 * All processes receive all messages. Those that wait keep what the leader may not have done (`takeover-buffer.ts`): the
 * leader says with each heartbeat before which moment everything is done, by the server's clock, which both can read
 * (`progress.ts` maps it to bounds on the safe side). At a takeover what is kept is run again: a message may run twice around a
 * takeover, and none is lost as long as one process that received it lives.
 */
export { Leadership } from "./leadership.js";
export { fenceSql } from "./postgres-table.js";
export type { LeaderProgress } from "./progress.js";
export type { OthersHave, Unfinished } from "./protocol.js";
export { type KeptMessage, TakeoverBuffer } from "./takeover-buffer.js";
