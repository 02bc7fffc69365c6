/** Departures from the rules of processes that lead one after the other, each of which the simulation must catch. */
import {
  type BatchStep,
  type FetchStep,
  type Outcome,
  type SpillStep,
  type Step,
  SubscriptionQueue,
} from "../../../src/bridge/queue/index.js";
import { type MutantOptions, simulation } from "../simulation.js";
import { Succession } from "./succession.js";

class ForgetsWhatWasSaved extends SubscriptionQueue {
  constructor(...[subscription, context]: ConstructorParameters<typeof SubscriptionQueue>) {
    super(subscription, context, false);
  }
}

class DeletesWhatItHasRead extends SubscriptionQueue {
  protected override takeFetch(): FetchStep | undefined {
    const step = super.takeFetch();
    return step && { ...step, done: [...step.done, (step.done.at(-1) ?? 0n) + 1n] };
  }
}

class RunsOneOfItsOwnFirst extends SubscriptionQueue {
  #hasRun = false;

  protected override takeFetch(): FetchStep | undefined {
    if (this.#hasRun || this.messages.length === 0) return super.takeFetch();
    this.#hasRun = true;
    return undefined;
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
  protected override takeBatch(): BatchStep {
    return { ...super.takeBatch(), savedIds: [] };
  }
}

class WritesWhatItIsRunning extends SubscriptionQueue {
  protected override moveTriedToPage(): void {}
}

class DeletesAllThatWasTried extends SubscriptionQueue {
  protected override assignSavedIds(savedIds: readonly bigint[]): void {
    super.assignSavedIds(savedIds, savedIds.length);
  }
}

class ForgetsWhatWasDoneMeanwhile extends SubscriptionQueue {
  protected override assignSavedIds(savedIds: readonly bigint[], done: number): void {
    super.assignSavedIds(savedIds.slice(done), 0);
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

interface SuccessionMutant extends MutantOptions {
  readonly Queue: typeof SubscriptionQueue;
}

const classes = [
  ForgetsWhatWasSaved,
  DeletesWhatItHasRead,
  RunsOneOfItsOwnFirst,
  ForgetsAfterAFailedFetch,
  SavesNothingAtTheEnd,
  CommitsWithoutDeleting,
  SavesInTheOtherOrder,
  WritesWhatItIsRunning,
  DeletesAllThatWasTried,
  ForgetsWhatWasDoneMeanwhile,
  BelievesInALostAnswer,
  KeepsWhatItHasWritten,
  WritesTheNewestFirst,
];

/** A queue of processes that lead one after the other, and the table of the messages that they have not run. */
export const successions = simulation<SuccessionMutant>(
  "successions",
  (seed, mutant) => new Succession(seed, mutant?.Queue),
  Object.fromEntries(classes.map((Queue) => [Queue.name, { Queue, seeds: 5_000 }])),
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
