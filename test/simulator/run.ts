import { type GroupMutant, groupMustHappen, groupMutants, unchanged as unchangedGroups } from "./groups/mutants.js";
import { GroupWorld } from "./groups/world.js";
import { mutants, unchanged } from "./mutants.js";
import { type OutboxMutant, outboxMustHappen, outboxMutants, unchanged as unchangedOutbox } from "./outbox/mutants.js";
import { OutboxWorld } from "./outbox/world.js";
import { Counts, Violation } from "./records.js";
import {
  type ScheduleMutant,
  scheduleMustHappen,
  scheduleMutants,
  unchanged as unchangedSchedules,
} from "./schedules/mutants.js";
import { ScheduleWorld } from "./schedules/world.js";
import {
  type StreamMutant,
  streamMustHappen,
  streamMutants,
  unchanged as unchangedStreams,
} from "./streams/mutants.js";
import { StreamWorld } from "./streams/world.js";
import { World } from "./world.js";

/** World of one run: everything in it follows from the seed. */
interface SimulatedWorld {
  readonly counts: Counts;
  /** @throws Violation */
  run(): void;
}

/** Subject of the simulation, with its rules. */
export interface Simulation {
  readonly name: "channels" | "outbox" | "groups" | "streams" | "schedules";
  world(seed: number): SimulatedWorld;
  /** Number of seeds that the test runs. Default: 2,000. */
  readonly seeds?: number;
  /** Events that must happen in any long run; a count of zero means that the simulator does not reach them any more. */
  readonly mustHappen: readonly string[];
  readonly mutants: readonly SimulatedMutant[];
}

/** A program that the simulator must catch. */
interface SimulatedMutant {
  readonly name: string;
  /** Within how many seeds it must be caught. */
  readonly seeds: number;
  /** The first of them: one that catches it at once, where that takes long from 1 on. */
  readonly firstSeed: number;
  world(seed: number): SimulatedWorld;
}

const channelMustHappen = [
  ...["kill", "stall", "cut", "session", "failover", "crash", "twin", "delete", "outage", "stop", "reassign"].map(
    (kind) => `fault: ${kind}`,
  ),
  "fault: call lost before its commit",
  "fault: unknown commit that lands late",
  "fault: late event of a closed connection",
  "fault: half-open connection",
  "fault: lost notification",
  "fault: lost session that is noticed late",
  "fault: lower message limit",
  "fault: slow query",
  "fault: slow commit",
  "fault: full socket buffer",
  "transition: acks coalesced",
  "fault: handler failed",
  "fault: handler postponed",
  ...["draining", "going-live", "live", "down", "ended"].map((state) => `transition: sender ${state}`),
  "transition: at-most-once written at once",
  "transition: busy",
  "transition: lease taken",
  "transition: lease suspended",
  "transition: lease regained",
  "transition: epoch renewed",
  "transition: own token found",
  "transition: another server refused",
  "transition: name_lost",
  "transition: name_in_use",
  "transition: insert fenced",
  "transition: cursor fenced",
  "transition: hello refused as fenced",
  "transition: connection replaced",
  "transition: listener busy",
  "transition: listener live ack",
  "transition: listener drained rows",
  "transition: stale rows deleted",
  "transition: stopped cleanly",
  "transition: handled again",
  "transition: gap",
  "transition: reading paused",
  "transition: dead letter",
  "transition: batch passed",
  "transition: passed messages end with one that fails",
  "fault: message that kills its process",
  "fault: message that ends its session",
  "fault: unknown transaction that lands late",
  "transition: attempt counted",
  "transition: message isolated",
  "transition: given up after crashes",
  "transition: channels handed over",
  "transition: channel given back",
  "transition: channel passed on",
  "transition: channel stays closed in doubt",
  "transition: hello refused as wrong peer",
  "transition: deposed, as a beat showed",
  "transition: effect committed",
  "transition: transaction committed",
  "transition: transaction duplicate",
  "transition: transaction tried again",
  "transition: waited for a cursor",
  "transition: waited for a mark",
  "transition: marks read",
  "transition: marked beyond an unfinished message",
  "transition: message parked",
  "transition: parked behind its key",
  "transition: parked messages read",
  "transition: parked behind its key read",
  "transition: parked message done",
  "transition: stopped cleanly again with something parked",
  "transition: channels handed over with something parked",
  "transition: channel given back with something parked",
  "transition: channel passed on with something parked",
  "transition: start of a parked message counted",
  "transition: parked message isolated",
  "transition: limit full",
  "transition: limit freed",
  "transition: topic looked up",
  ...["delivered", "stored", "sent", "dropped", "timed-out", "fenced"].map((outcome) => `outcome: ${outcome}`),
];

const channels: Simulation = {
  name: "channels",
  world: (seed) => new World(seed, unchanged),
  mustHappen: channelMustHappen,
  mutants: mutants.map(({ mutant, ...rest }) => ({ ...rest, world: (seed) => new World(seed, mutant) })),
};

const outbox: Simulation = {
  name: "outbox",
  seeds: 1_000,
  world: (seed) => new OutboxWorld(seed, unchangedOutbox),
  mustHappen: outboxMustHappen,
  mutants: Object.entries<OutboxMutant>(outboxMutants).map(([name, mutant]) => ({
    name,
    seeds: mutant.seeds ?? 1_000,
    firstSeed: mutant.firstSeed ?? 1,
    world: (seed) => new OutboxWorld(seed, mutant),
  })),
};

const groups: Simulation = {
  name: "groups",
  seeds: 1_000,
  world: (seed) => new GroupWorld(seed, unchangedGroups),
  mustHappen: groupMustHappen,
  mutants: Object.entries<GroupMutant>(groupMutants).map(([name, mutant]) => ({
    name,
    seeds: mutant.seeds ?? 1_000,
    firstSeed: mutant.firstSeed ?? 1,
    world: (seed) => new GroupWorld(seed, mutant),
  })),
};

const streams: Simulation = {
  name: "streams",
  seeds: 300,
  world: (seed) => new StreamWorld(seed, unchangedStreams),
  mustHappen: streamMustHappen,
  mutants: Object.entries<StreamMutant>(streamMutants).map(([name, mutant]) => ({
    name,
    seeds: mutant.seeds ?? 300,
    firstSeed: mutant.firstSeed ?? 1,
    world: (seed) => new StreamWorld(seed, mutant),
  })),
};

const schedules: Simulation = {
  name: "schedules",
  seeds: 300,
  world: (seed) => new ScheduleWorld(seed, unchangedSchedules),
  mustHappen: scheduleMustHappen,
  mutants: Object.entries<ScheduleMutant>(scheduleMutants).map(([name, mutant]) => ({
    name,
    seeds: mutant.seeds ?? 300,
    firstSeed: mutant.firstSeed ?? 1,
    world: (seed) => new ScheduleWorld(seed, mutant),
  })),
};

export const simulations: readonly Simulation[] = [channels, outbox, groups, streams, schedules];

export interface RunOptions {
  readonly first: number;
  readonly count: number;
  /** Ends with so many violations. */
  readonly maxFailures: number;
  /** Ends with so many seeds, once all of that has happened. Default: `count`. */
  readonly enough?: { readonly count: number; readonly happened: readonly string[] };
  readonly onProgress?: (done: number) => void;
}

/**
 * Runs seeds `first` … `first + count - 1`, or as many as are enough, and gathers counts and violations.
 *
 * @returns also how many seeds were run
 */
export function runSeeds(world: (seed: number) => SimulatedWorld, options: RunOptions) {
  const counts = new Counts();
  const failures: { seed: number; message: string }[] = [];
  let seeds = 0;
  while (seeds < options.count && failures.length < options.maxFailures) {
    const seed = options.first + seeds;
    const run = world(seed);
    try {
      run.run();
    } catch (error) {
      if (!(error instanceof Violation)) throw Object.assign(error as Error, { seed });
      failures.push({ seed, message: error.message });
    }
    counts.merge(run.counts);
    if (seeds % 500 === 0) options.onProgress?.(seeds);
    seeds += 1;
    const { enough } = options;
    if (enough !== undefined && seeds >= enough.count && enough.happened.every((name) => counts.values.has(name)))
      break;
  }
  return { counts, failures, seeds };
}
