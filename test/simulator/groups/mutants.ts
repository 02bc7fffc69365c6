/** Departures from the rules of groups, each of which the simulator must catch: they show that it can fail. */
import { events, type MutantOptions, simulation } from "../simulation.js";
import { GroupWorld } from "./world.js";

/** Faults inside Postgres. */
export interface GroupFaults {
  readonly sharesKeys?: boolean;
  readonly claimsSideBySide?: boolean;
  readonly noFence?: boolean;
  readonly numbersByRows?: boolean;
  readonly writesToMembers?: boolean;
  readonly forgetsKeys?: boolean;
  readonly adoptsBehindClaims?: boolean;
  readonly adoptsCopies?: boolean;
  readonly claimsOfOthers?: boolean;
  readonly followsCopies?: boolean;
  readonly takesOverFromOthers?: boolean;
  readonly takesOverWaiting?: boolean;
}

/** Parts of a run that a mutant replaces. */
export interface GroupMutant extends MutantOptions {
  readonly store?: GroupFaults;
}

const mustHappen = [
  ...events("fault", "kill", "stall", "stop", "force", "delete", "twin", "answer to a claim lost", "lost notification"),
  ...events("transition", "message waits", "message given to a listener", "waiting channel adopted"),
  ...events("transition", "copy for a listener", "copy for a group", "messages claimed", "another member has the key"),
  ...events("transition", "waited for another claim", "claimed channel is away", "taken over", "channel goes back"),
  ...events("transition", "name lost", "stopped", "left to its group"),
  ...events("transition", "group's messages wait beside a listener that takes over"),
];

const mutants: Readonly<Record<string, GroupMutant>> = {
  "lets two members have one key": { store: { sharesKeys: true } },
  "numbers two claims of a member at a time": { store: { claimsSideBySide: true } },
  "claims without the fence": { store: { noFence: true } },
  "numbers a claim by what is there": { store: { numbersByRows: true } },
  "lets the relay write behind what a member has claimed": { store: { writesToMembers: true } },
  "gives a key to a listener while others wait": { store: { forgetsKeys: true } },
  "lets a member of another group claim": { store: { claimsOfOthers: true } },
  "lets a message follow the copies of a group": { store: { followsCopies: true } },
  "gives what waits for a group to a listener": { store: { adoptsCopies: true } },
  "lets a listener outside of a group take over what a member has claimed": { store: { takesOverFromOthers: true } },
  "lets a listener outside of a group take over what waits for it": { store: { takesOverWaiting: true } },
  "gives what waits to a listener before what members have claimed is handled": {
    firstSeed: 300,
    store: { adoptsBehindClaims: true },
  },
};

/** Members of groups, which claim their messages. */
export const groups = simulation<GroupMutant>("groups", (seed, mutant) => new GroupWorld(seed, mutant), mutants, {
  mustHappen,
});
