/** Departures from the rules of leases, each of which the simulator must catch: they show that it can fail. */
import { events, type MutantOptions, simulation } from "../simulation.js";
import { LeaseWorld } from "./world.js";

/** Faults inside Postgres. */
export interface LeaseFaults {
  readonly takesTwice?: boolean;
  readonly locksNoKeys?: boolean;
  readonly looksBeforeLocks?: boolean;
  readonly sharesKeys?: boolean;
  readonly passesParked?: boolean;
  readonly keepsRestOfKey?: boolean;
  readonly neverLooksBehind?: boolean;
  readonly missesListener?: boolean;
  readonly takesOfOthers?: boolean;
  readonly endsLiveTerms?: boolean;
  readonly ignoresCount?: boolean;
  readonly countsDelays?: boolean;
  readonly countsBeforeLock?: boolean;
  readonly locksNoSettings?: boolean;
  readonly countsNoSilent?: boolean;
  readonly forgetsStarts?: boolean;
}

/** Parts of a run that a mutant replaces. */
export interface LeaseMutant extends MutantOptions {
  readonly store?: LeaseFaults;
  readonly keepsTerm?: boolean;
  readonly keepsLane?: boolean;
  readonly entersSideBySide?: boolean;
  readonly keepsPaused?: boolean;
}

const mustHappen = [
  ...events("fault", "kill", "stall", "stop", "crash", "failover", "outage", "answer lost", "lost notification"),
  ...events(
    "transition",
    "taken",
    "taken over",
    "stopped",
    "given up",
    "wanted later",
    "found behind",
    "taken from a member that is gone",
  ),
  ...events("new term", "it was silent", "the connection is new", "an answer was lost", "a row is another's"),
  ...events("transition", "another one looks at the key", "outcome unknown"),
  ...events("transition", "given back to a paused topic", "started under a limit", "a topic is at its limit"),
  ...events("transition", "another one takes of the limited topic"),
  ...events("transition", "another member has the key, or its first message waits", "the row is gone"),
];

const mutants: Readonly<Record<string, LeaseMutant>> = {
  "takes what another member has": { store: { takesTwice: true } },
  "lets two members look at a key": { store: { locksNoKeys: true } },
  "looks who has a key before it locks what it takes": {
    firstSeed: 15_300,
    seeds: 1_400,
    store: { looksBeforeLocks: true },
  },
  "lets two members have one key": { store: { sharesKeys: true } },
  "lets a key go on while its first message waits to be tried again": { store: { passesParked: true } },
  "lets a member go on with a key whose first message waits to be tried again": { store: { keepsRestOfKey: true } },
  "never looks behind": { store: { neverLooksBehind: true } },
  "makes no copy for one listener": { store: { missesListener: true } },
  "takes what is for another group": { store: { takesOfOthers: true } },
  "ends a term that goes on": { store: { endsLiveTerms: true } },
  "commits although the row is gone": { store: { ignoresCount: true } },
  "counts a delay that a handler wants as an attempt": { store: { countsDelays: true } },
  "keeps its term when an answer is lost, or Postgres was away": { keepsTerm: true },
  "takes and puts off side by side": { entersSideBySide: true },
  "counts what runs of a limited topic before it has the lock": { store: { countsBeforeLock: true } },
  "takes of a limited topic without a lock": { store: { locksNoSettings: true } },
  "does not count what a member has that stands still": { store: { countsNoSilent: true }, says: /run, and/ },
  "forgets when messages of a limited topic have started": { store: { forgetsStarts: true }, says: /started in/ },
  "begins what it has read ahead of a paused topic": { keepsPaused: true, says: /is paused/ },
  "goes on with a key whose message another one has": { firstSeed: 3_000, seeds: 7_000, keepsLane: true },
};

/** Messages that are handled where they lie. */
export const leases = simulation<LeaseMutant>("leases", (seed, mutant) => new LeaseWorld(seed, mutant), mutants, {
  mustHappen,
});
