import { events, simulation } from "../simulation.js";
import { type Mutant, mutants } from "./mutants.js";
import { ChannelWorld } from "./world.js";

const mustHappen = [
  ...events("fault", "kill", "stall", "cut", "session", "failover", "crash", "twin", "delete", "outage", "stop"),
  ...events("fault", "release", "subscribe", "call lost before its commit", "unknown commit that lands late"),
  ...events("fault", "late event of a closed connection", "half-open connection", "lost notification"),
  ...events("fault", "lost session that is noticed late", "lower message limit", "slow query", "slow commit"),
  ...events("fault", "full socket buffer", "handler failed", "handler postponed", "handler wants it later"),
  ...events("fault", "message that kills its process"),
  ...events("transition", "acks coalesced", "sender draining", "sender going-live", "sender live", "sender down"),
  ...events("transition", "sender ended", "at-most-once written at once", "busy", "lease taken", "lease suspended"),
  ...events("transition", "lease regained", "epoch renewed", "own token found", "another server refused", "name_lost"),
  ...events("transition", "name_in_use", "insert fenced", "cursor fenced", "hello refused as fenced"),
  ...events("transition", "connection replaced", "listener busy", "listener live ack", "listener drained rows"),
  ...events("transition", "stale rows deleted", "stopped cleanly", "handled again", "gap", "reading paused"),
  ...events("transition", "handled by a deposed listener", "handlers cut off at a stop", "dead letter", "batch passed"),
  ...events("transition", "passed messages end with one that fails", "deposed, as a beat showed", "effect committed"),
  ...events("transition", "waited for a cursor", "limit full", "limit freed", "topic looked up"),
  ...events("transition", "row inserted", "rows of a repeated commit left out", "left before an attempt"),
  ...events("transition", "left after an attempt", "left while its handler runs", "suspect left", "row begun"),
  ...events("transition", "row begun by another listener", "row done", "row freed", "given up after crashes"),
  ...events("transition", "channel opened with rows", "channel opened with suspects", "lane still away"),
  ...events("transition", "lane comes back", "rows found under the lock of the cursor", "released", "release refused"),
  ...events("outcome", "delivered", "stored", "sent", "dropped", "timed-out", "fenced"),
];

/** Delivery between peers. */
export const channels = simulation<Mutant>("channels", (seed, mutant) => new ChannelWorld(seed, mutant), mutants, {
  seeds: 2_000,
  firstSeed: 5_519,
  mustHappen,
});
