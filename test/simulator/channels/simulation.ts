import { events, simulation } from "../simulation.js";
import { type Mutant, mutants } from "./mutants.js";
import { ChannelWorld } from "./world.js";

const mustHappen = [
  ...events("fault", "kill", "stall", "cut", "session", "failover", "crash", "twin", "delete", "outage", "stop"),
  ...events("fault", "reassign", "call lost before its commit", "unknown commit that lands late"),
  ...events("fault", "late event of a closed connection", "half-open connection", "lost notification"),
  ...events("fault", "lost session that is noticed late", "lower message limit", "slow query", "slow commit"),
  ...events(
    "fault",
    "full socket buffer",
    "handler failed",
    "handler postponed",
    "handler wants it later",
    "message that kills its process",
  ),
  ...events("fault", "message that ends its session", "unknown transaction that lands late"),
  ...events("transition", "acks coalesced", "sender draining", "sender going-live", "sender live", "sender down"),
  ...events("transition", "sender ended", "at-most-once written at once", "busy", "lease taken", "lease suspended"),
  ...events("transition", "lease regained", "epoch renewed", "own token found", "another server refused", "name_lost"),
  ...events("transition", "name_in_use", "insert fenced", "cursor fenced", "hello refused as fenced"),
  ...events("transition", "connection replaced", "listener busy", "listener live ack", "listener drained rows"),
  ...events("transition", "stale rows deleted", "stopped cleanly", "handled again", "gap", "reading paused"),
  ...events("transition", "dead letter", "batch passed", "passed messages end with one that fails", "attempt counted"),
  ...events("transition", "message isolated", "given up after crashes", "channels handed over", "channel given back"),
  ...events("transition", "channel passed on", "channel stays closed in doubt", "hello refused as wrong peer"),
  ...events("transition", "deposed, as a beat showed", "effect committed", "transaction committed"),
  ...events("transition", "transaction duplicate", "transaction tried again", "waited for a cursor"),
  ...events("transition", "waited for a mark", "marks read", "marked beyond an unfinished message", "message parked"),
  ...events("transition", "parked behind its key", "parked messages read", "parked behind its key read"),
  ...events("transition", "parked message done", "stopped cleanly again with something parked"),
  ...events("transition", "channels handed over with something parked", "channel given back with something parked"),
  ...events("transition", "channel passed on with something parked", "start of a parked message counted"),
  ...events("transition", "parked message isolated", "limit full", "limit freed", "topic looked up"),
  ...events("outcome", "delivered", "stored", "sent", "dropped", "timed-out", "fenced"),
];

/** Delivery between peers. */
export const channels = simulation<Mutant>("channels", (seed, mutant) => new ChannelWorld(seed, mutant), mutants, {
  seeds: 2_000,
  firstSeed: 5_519,
  // A message and its copy under the sender's next epoch wait to be parked at the same time.
  knownSeeds: [7_095_561],
  mustHappen,
});
