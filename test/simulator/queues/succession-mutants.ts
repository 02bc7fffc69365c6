/** Departures from the rules of processes that lead one after the other, each of which the simulation must catch. */
import { type Outcome, type SpillStep, type Step, SubscriptionQueue } from "../../../src/nats/bridge/queue/index.js";
import { type QueueRules, queueRules } from "../../../src/nats/bridge/queue/rules.js";
import { simulation } from "../simulation.js";
import { Succession, type SuccessionMutant } from "./succession.js";

const { nextKind, dividedIds } = queueRules;
const seeds = 5_000;

const queue = (Queue: typeof SubscriptionQueue): SuccessionMutant => ({ Queue, seeds });
const rules = (changed: Partial<QueueRules>): SuccessionMutant => ({ rules: changed, seeds });

class ForgetsWhatWasSaved extends SubscriptionQueue {
  constructor(...[subscription, context, options]: ConstructorParameters<typeof SubscriptionQueue>) {
    super(subscription, context, { ...options, hasSaved: false });
  }
}

class DeletesWhatItHasRead extends SubscriptionQueue {
  override next(now: number): Step | undefined {
    const step = super.next(now);
    if (step?.kind !== "fetch") return step;
    return Object.assign(step, { done: [...step.done, (step.done.at(-1) ?? 0n) + 1n] });
  }
}

class RunsOneOfItsOwnFirst extends SubscriptionQueue {
  readonly #own: { isNext: boolean; hasRun: boolean };

  constructor(...[subscription, context, options]: ConstructorParameters<typeof SubscriptionQueue>) {
    const own = { isNext: false, hasRun: false };
    const ownFirst: QueueRules["nextKind"] = (state) => {
      const kind = nextKind(state);
      own.isNext = kind === "fetch" && state.offered > 0 && !own.hasRun;
      return own.isNext ? "batch" : kind;
    };
    super(subscription, context, { ...options, rules: { ...queueRules, nextKind: ownFirst } });
    this.#own = own;
  }

  override next(now: number): Step | undefined {
    const step = super.next(now);
    if (step !== undefined && this.#own.isNext) this.#own.hasRun = true;
    return step;
  }
}

class ForgetsAfterAFailedFetch extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const isFailed = step.kind === "fetch" && outcome.kind !== "fetched";
    super.onOutcome(step, isFailed ? { kind: "fetched", saved: [] } : outcome, now);
  }
}

class SavesNothingAtTheEnd extends SubscriptionQueue {
  override get unfinished() {
    return [];
  }
}

class CommitsWithoutDeleting extends SubscriptionQueue {
  override next(now: number): Step | undefined {
    const step = super.next(now);
    return step?.kind === "batch" ? Object.assign(step, { savedIds: [] }) : step;
  }
}

class BelievesInALostAnswer extends SubscriptionQueue {
  override onSpilled(step: SpillStep, savedIds: readonly bigint[] | undefined): void {
    super.onSpilled(step, savedIds ?? step.messages.map((_, index) => BigInt(-1 - index)));
  }
}

class KeepsWhatItHasWritten extends SubscriptionQueue {
  override onSpilled(step: SpillStep): void {
    super.onSpilled(step, undefined);
  }
}

class WritesTheNewestFirst extends SubscriptionQueue {
  override takeSpill(mostBytes: number): SpillStep | undefined {
    const step = super.takeSpill(mostBytes);
    return step && Object.assign(step, { messages: step.messages.toReversed() });
  }
}

class SavesInTheOtherOrder extends SubscriptionQueue {
  override get unfinished() {
    return [...super.unfinished].toReversed();
  }
}

const mutants: Readonly<Record<string, SuccessionMutant>> = {
  "forgets what was saved": queue(ForgetsWhatWasSaved),
  "deletes what it has read": queue(DeletesWhatItHasRead),
  "runs one of its own first": queue(RunsOneOfItsOwnFirst),
  "forgets what was saved after a failed fetch": queue(ForgetsAfterAFailedFetch),
  "saves nothing at the end": queue(SavesNothingAtTheEnd),
  "commits without deleting": queue(CommitsWithoutDeleting),
  "saves in the other order": queue(SavesInTheOtherOrder),
  "writes what it is running behind what follows": rules({ firstToSpill: () => 0 }),
  "deletes all that was tried": rules({ dividedIds: (ids) => dividedIds(ids, ids.length) }),
  "forgets what was done meanwhile": rules({ dividedIds: (ids, finished) => [[], ids.slice(finished)] }),
  "believes in a lost answer": queue(BelievesInALostAnswer),
  "keeps what it has written": queue(KeepsWhatItHasWritten),
  "writes the newest first": queue(WritesTheNewestFirst),
};

/** A queue of processes that lead one after the other, and the table of the messages that they have not run. */
export const successions = simulation<SuccessionMutant>(
  "successions",
  (seed, mutant) => new Succession(seed, mutant),
  mutants,
  {
    seeds: 30_000,
    mustHappen: [
      "fetched",
      "repeated",
      "killed",
      "ended in order",
      "handed in",
      "spilled in pieces",
      "answer to a spill lost",
    ],
  },
);
