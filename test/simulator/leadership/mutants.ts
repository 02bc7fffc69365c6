/**
 * Departures from the rules, each of which the simulation must catch: they show that it can fail.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { KnownProgress, type LeaderProgress } from "../../../src/nats/bridge/leadership/progress.js";
import { LeadershipProtocol, LeaderWatch } from "../../../src/nats/bridge/leadership/protocol.js";
import type { ClockSample, LeadershipRow } from "../../../src/nats/bridge/leadership/table.js";
import { TakeoverBuffer } from "../../../src/nats/bridge/leadership/takeover-buffer.js";
import { events, type MutantOptions, simulation } from "../simulation.js";
import { type ProfileName, profileNames } from "./profiles.js";
import type { StoreFaults } from "./store.js";
import { LeadershipWorld } from "./world.js";

/** Parts of a run that a mutant replaces. */
export interface Mutant extends MutantOptions {
  readonly Protocol?: typeof LeadershipProtocol;
  readonly Buffer?: typeof TakeoverBuffer;
  readonly store?: StoreFaults;
  /** Default: each in turn. */
  readonly profile?: ProfileName;
}

class NoFence extends LeadershipProtocol {
  protected override async raiseFence(epoch: bigint) {
    const { row, clock } = await this.options.table.read();
    return row.epoch === epoch ? { clock, isRaised: true } : undefined;
  }
}

class LeadsBeforeFence extends LeadershipProtocol {
  protected override async raiseFence(epoch: bigint) {
    super.raiseFence(epoch).catch(() => undefined);
    const { row, clock } = await this.options.table.read();
    return row.epoch === epoch ? { clock, isRaised: true } : undefined;
  }
}

class WatchGoesOn extends LeadershipProtocol {
  protected override watch = new (class extends LeaderWatch {
    override restart(): void {}
  })(Number.POSITIVE_INFINITY);
}

class TrimsByTime extends LeadershipProtocol {
  protected override known = new (class extends KnownProgress {
    override update(_: LeadershipRow, { heardAt }: ClockSample): LeaderProgress {
      return { doneBefore: heardAt, behind: new Map(), completeSince: Number.NEGATIVE_INFINITY };
    }
  })();
}

class UpperBoundOfLeader extends LeadershipProtocol {
  protected override progressAt(sample: ClockSample, oldestAt: number): number {
    return super.progressAt({ ...sample, heardAt: sample.sentAt }, oldestAt);
  }
}

class LowerBoundOfOthers extends LeadershipProtocol {
  protected override known = new (class extends KnownProgress {
    protected override bound(clock: ClockSample, progressAt: number): number {
      return super.bound({ ...clock, sentAt: clock.heardAt }, progressAt);
    }
  })();
}

class ProgressIsNow extends LeadershipProtocol {
  protected override progressAt(sample: ClockSample): number {
    return sample.serverTime + this.options.clock.now() - sample.heardAt;
  }
}

class TrustsAnyClock extends LeadershipProtocol {
  protected override known = new (class extends KnownProgress {
    #last: LeaderProgress | undefined;
    override update(row: LeadershipRow, clock: ClockSample): LeaderProgress | undefined {
      const told = this.supposed(row, clock);
      if (told !== undefined) this.#last = { ...told, completeSince: Number.NEGATIVE_INFINITY };
      return this.#last;
    }
  })();
}

class NobodyFirst extends LeadershipProtocol {
  protected override quietMs(row: LeadershipRow): number {
    return row.owner === undefined || row.owner === this.options.owner ? 0 : bridgeConstants.leaderExpiryMs;
  }
}

class GuessesNothing extends LeadershipProtocol {
  protected override quietMs(row: LeadershipRow): number {
    return super.quietMs(row, undefined);
  }
}

class NeverReluctant extends LeadershipProtocol {
  protected override get extraQuietMs(): number {
    return 0;
  }
}

class NothingKept extends TakeoverBuffer {
  override add(): void {}
}

class NewestFirstGone extends TakeoverBuffer {
  override noteProgress(progress: LeaderProgress | undefined): void {
    super.noteProgress(progress && { ...progress, doneBefore: progress.doneBefore + 10_000, behind: new Map() });
  }
}

class SpeaksOfWhatItNeverHad extends LeadershipProtocol {
  protected override progress() {
    return { ...super.progress(), completeSince: undefined };
  }
}

class SpeaksForThoseBehind extends LeadershipProtocol {
  protected override progress() {
    return { ...super.progress(), behind: new Map() };
  }
}

class ForgetsThoseBehind extends TakeoverBuffer {
  override noteProgress(progress: LeaderProgress | undefined): void {
    super.noteProgress(progress && { ...progress, behind: new Map() });
  }
}

class BelievesThatSomebodyLeads extends LeadershipProtocol {
  override async othersHave() {
    return { until: Number.POSITIVE_INFINITY, afterCleanEnd: false };
  }
}

class HandsNothingOver extends TakeoverBuffer {
  override get unknownToLeader() {
    return [];
  }
}

class HandsOverItsOwnOnly extends TakeoverBuffer {
  override get unknownToLeader() {
    const unknown = super.unknownToLeader;
    this.remove(new Set(unknown.filter(({ isOwn }) => !isOwn).map(({ message }) => message)));
    return unknown.filter(({ isOwn }) => isOwn);
  }
}

class NeverStoodStill extends TakeoverBuffer {
  override add(...[message, subscriptions, isOwn]: Parameters<TakeoverBuffer["add"]>): void {
    super.add({ ...message, notBefore: undefined }, subscriptions, isOwn);
  }
}

const mutants: Readonly<Record<string, Mutant>> = {
  "a leader that speaks of what came before it": {
    Protocol: SpeaksOfWhatItNeverHad,
    profile: "newcomer",
    seeds: 20,
    says: /missing/,
  },
  "what the leader never had is not handed over": {
    Buffer: HandsNothingOver,
    profile: "newcomer",
    seeds: 20,
    says: /missing/,
  },
  "of what the leader never had only one's own is handed over": {
    Buffer: HandsOverItsOwnOnly,
    profile: "leaving",
    firstSeed: 38,
    seeds: 200,
    says: /missing/,
  },
  "what was received late is taken for new": {
    Buffer: NeverStoodStill,
    profile: "newcomer",
    seeds: 60,
    says: /missing/,
  },
  "progress that leaves out the queues that stand still": {
    Protocol: SpeaksForThoseBehind,
    profile: "tight",
    seeds: 200,
    says: /missing/,
  },
  "what most queues have done goes for all": {
    Buffer: ForgetsThoseBehind,
    profile: "tight",
    seeds: 400,
    says: /missing/,
  },
  "one that ends leaves what it has kept to nobody": {
    Protocol: BelievesThatSomebodyLeads,
    profile: "leaving",
    seeds: 100,
    says: /missing/,
  },
  "no second step": { Protocol: NoFence, profile: "rough", seeds: 60, says: /0 lead in the end|are missing/ },
  "leads before the fence is through": {
    // Alone it does no harm: the batches of the new leader ask the fence, too.
    Protocol: LeadsBeforeFence,
    store: { batchAsksLeadOnly: true },
    profile: "rough",
    seeds: 200,
    says: /commits in epoch/,
  },
  "epoch read before the lock": {
    store: { batchAsksLeadOnly: true },
    profile: "relapse",
    firstSeed: 4,
    seeds: 200,
    says: /commits in epoch/,
  },
  "batch that does not lock the fence": {
    store: { batchWithoutLock: true },
    profile: "rough",
    firstSeed: 28,
    seeds: 200,
    says: /commits in epoch/,
  },
  "observation that outlives its session": {
    Protocol: WatchGoesOn,
    profile: "calm",
    seeds: 60,
    says: /was replaced/,
  },
  "taken without reading the heartbeat": {
    store: { takeIgnoresBeat: true },
    profile: "stalls",
    firstSeed: 9,
    seeds: 200,
    says: /taken from a leader that beat/,
  },
  "epochs in equal steps": {
    store: { equalEpochSteps: true },
    profile: "relapse",
    seeds: 400,
    says: /commits in epoch/,
  },
  "heartbeat that does not read the fence": {
    store: { beatIgnoresFence: true },
    profile: "relapse",
    firstSeed: 27,
    seeds: 400,
    says: /missing/,
  },
  "beat in another's name": {
    // Alone it does no harm: the fence shows another epoch.
    store: { beatIgnoresOwner: true, beatIgnoresFence: true },
    profile: "rough",
    firstSeed: 56,
    seeds: 200,
    says: /missing|lead in the end/,
  },
  "hanging batches are not ended": {
    store: { endsNobody: true },
    profile: "fresh",
    seeds: 60,
    says: /nobody leads|0 lead in the end/,
  },
  "nothing is kept": { Buffer: NothingKept, profile: "rough", seeds: 60, says: /missing/ },
  "trimmed by local time only": { Protocol: TrimsByTime, profile: "tight", seeds: 60, says: /missing/ },
  "trimmed without the margin": { Buffer: NewestFirstGone, profile: "rough", seeds: 60, says: /missing/ },
  "upper bound of the leader's progress": {
    Protocol: UpperBoundOfLeader,
    profile: "tight",
    seeds: 600,
    says: /missing/,
  },
  "lower bound of one's own time": { Protocol: LowerBoundOfOthers, profile: "tight", seeds: 600, says: /missing/ },
  "progress without the messages under way": {
    Protocol: ProgressIsNow,
    profile: "tight",
    seeds: 60,
    says: /missing/,
  },
  "progress by another server's clock": {
    Protocol: TrustsAnyClock,
    profile: "failover",
    seeds: 200,
    says: /missing/,
  },
  "a process that cannot run functions takes leadership as others do": {
    Protocol: NeverReluctant,
    profile: "refused",
    firstSeed: 25,
    seeds: 40,
    says: /cannot run functions has led/,
  },
  "a process that cannot trust the leader's progress waits like all others": {
    Protocol: GuessesNothing,
    profile: "fresh",
    seeds: 60,
    says: /was first run after/,
  },
  "a process that lacks messages does not wait": {
    Protocol: NobodyFirst,
    profile: "fresh",
    seeds: 60,
    says: /was first run after/,
  },
};

const mustHappen = [
  ...events("fault", "kill", "stall", "session", "restart", "failover", "clean stop", "start", "refused login"),
  ...events("taken", "free", "own", "silent"),
  "leading",
  "deposed",
  "waiting",
  "released",
  "fence waited for",
  "batch refused",
  "batch failed",
  "batch ended by the next leader",
  "statement that lands late",
  "takeover watched",
  "gave way",
  "done again",
  "told behind",
  "saved by one that waited",
  "saved beside one that ends",
  "all have left",
];

/** Profile and seed of a run of all profiles in turn. */
function turnOf(seed: number): [ProfileName, number] {
  const { length } = profileNames;
  return [profileNames[(seed - 1) % length]!, 1 + Math.floor((seed - 1) / length)];
}

/** One of the processes that serve NATS leads, and others take over from it. */
export const leadership = simulation<Mutant>(
  "leadership",
  (seed, mutant) => {
    const [profile, nth] = mutant?.profile === undefined ? turnOf(seed) : [mutant.profile, seed];
    return new LeadershipWorld(nth, profile, mutant);
  },
  mutants,
  // Forty of each profile.
  { seeds: 40 * profileNames.length, mustHappen },
);
