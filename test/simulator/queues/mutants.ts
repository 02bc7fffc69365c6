/** Departures from the rules, each of which the simulation must catch: they show that it can fail. */

import { type InboundMessage, memoryOf } from "../../../src/bridge/message.js";
import {
  type Admission,
  type BatchStep,
  ByteBudget,
  type Demand,
  type FunctionError,
  type Outcome,
  type QueueMemory,
  QueueScheduler,
  type Step,
  SubscriptionQueue,
  type Wait,
} from "../../../src/bridge/queue/index.js";
import type { Part } from "../../../src/bridge/queue/message-list.js";
import { simulation } from "../simulation.js";
import { type QueueMutant, QueueWorld } from "./world.js";

class DeadLettersFirstOfBatch extends SubscriptionQueue {
  protected override afterFailure(step: BatchStep, tried: Part, error: FunctionError): void {
    this.deadLetterOnly(step, error, tried.attempts);
  }
}

class NeverHalves extends SubscriptionQueue {
  protected override halve(tried: Part): void {
    this.messages.retryPart(tried);
  }
}

class OtherOrder extends SubscriptionQueue {
  protected override takeBatch(): BatchStep {
    const batch = super.takeBatch();
    return this.part!.attempts === 0 ? batch : { ...batch, messages: batch.messages.toReversed() };
  }
}

class SkipsOne extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    super.onOutcome(step, outcome, now);
    if (step.kind === "batch" && outcome.kind === "committed" && this.length > 0) this.messages.finish(1);
  }
}

class LossMeansCommitted extends SubscriptionQueue {
  protected override afterSessionLoss(_step: BatchStep, tried: Part): void {
    this.messages.finish(tried.count);
  }
}

class DeadLettersAfterOneLoss extends SubscriptionQueue {
  protected override afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    super.afterSessionLoss(step, { ...tried, losses: 1 }, message);
  }
}

class ForgetsLosses extends SubscriptionQueue {
  protected override afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    super.afterSessionLoss(step, { ...tried, losses: 0 }, message);
  }
}

class LossesInCompany extends SubscriptionQueue {
  protected override halve(tried: Part): void {
    super.halve({ ...tried, losses: 1 });
  }
}

class HalvesAfterTimeout extends SubscriptionQueue {
  protected override afterTimeout(step: BatchStep, tried: Part, error: FunctionError): void {
    this.size.timedOut();
    this.afterFailure(step, tried, error);
  }
}

class AlwaysLarge extends SubscriptionQueue {
  protected override takeBatch(): BatchStep {
    for (let times = 0; times < 10; times++) this.size.committed(this.size.limit, 0);
    return super.takeBatch();
  }
}

class DeadLettersTransient extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const transient = step.kind === "batch" && outcome.kind === "transient";
    super.onOutcome(step, transient ? { kind: "failed", error: outcome.error } : outcome, now);
  }
}

class KeepsTransientWhole extends SubscriptionQueue {
  protected override afterTransient(tried: Part, now: number): void {
    this.messages.retryPart(tried);
    this.pause.start(now);
  }
}

type Partly = Extract<Outcome, { kind: "partly" }>;

class TakesPartForAll extends SubscriptionQueue {
  protected override onPartialOutcome(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    this.onBatchOutcome(step, part, { kind: "committed", durationMs: outcome.durationMs }, now);
  }
}

class ForgetsPart extends SubscriptionQueue {
  protected override onPartialOutcome(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    super.onPartialOutcome(
      step,
      part,
      { ...outcome, committed: 0, ...(outcome.failed && { failed: { ...outcome.failed, count: part.count } }) },
      now,
    );
  }
}

class BlamesFirstForPart extends SubscriptionQueue {
  protected override onPartialOutcome(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    const first = Array<InboundMessage>(step.messages.length).fill(step.messages[0]!);
    super.onPartialOutcome({ ...step, messages: first }, part, outcome, now);
  }
}

class ForgetsWhatWasNotTried extends SubscriptionQueue {
  protected override onPartialOutcome(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    super.onPartialOutcome(step, { ...part, attempts: 0 }, outcome, now);
  }
}

class PausesBeforeHalving extends SubscriptionQueue {
  protected override afterTransient(tried: Part, now: number): void {
    super.afterTransient(tried, now);
    if (tried.count > 1) this.pause.start(now);
  }
}

class NoPause extends SubscriptionQueue {
  protected override afterTransient(tried: Part): void {
    if (tried.count > 1) this.halve(tried);
    else this.messages.retryPart(tried);
  }
}

class PauseNeverGrows extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    this.pause.reset();
    super.onOutcome(step, outcome, now);
  }
}

class PauseNeverShort extends SubscriptionQueue {
  override next(now: number): Step | undefined {
    this.pause.reset = () => undefined;
    return super.next(now);
  }
}

class CountsUnavailable extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const { part } = this;
    if (outcome.kind === "unavailable" && part !== undefined) this.part = { ...part, attempts: part.attempts + 1 };
    super.onOutcome(step, outcome, now);
  }
}

class DeadLettersBlindly extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const done = step.kind === "dead_letter" && outcome.kind === "unavailable";
    super.onOutcome(step, done ? { kind: "committed", durationMs: 1 } : outcome, now);
  }
}

class OvertakesBurial extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const { unwrittenDeadLetter } = this;
    super.onOutcome(step, outcome, now);
    if (unwrittenDeadLetter !== undefined && this.unwrittenDeadLetter === unwrittenDeadLetter)
      this.unwrittenDeadLetter = undefined;
  }
}

class KeepsMemoryOfBuried extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    super.onOutcome(step, outcome, now);
    const { budget } = this.context;
    if (step.kind === "dead_letter" && outcome.kind === "committed") budget.reserve(budget.addQueue(""), step.message);
  }
}

class KeepsMemoryWhenClosed extends SubscriptionQueue {
  override close(): void {
    this.stop();
  }
}

class TwoOut extends SubscriptionQueue {
  override get readyAt(): number {
    return this.stopped || this.length === 0 ? Number.POSITIVE_INFINITY : this.pause.until;
  }
}

class IgnoresDeposition extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    super.onOutcome(step, outcome.kind === "deposed" ? { kind: "unavailable" } : outcome, now);
  }
}

class ProgressOfWaiting extends SubscriptionQueue {
  override get oldestReceivedAt(): number | undefined {
    return this.runningStep?.kind === "dead_letter" ? undefined : super.oldestReceivedAt;
  }
}

class RetriesFirst extends SubscriptionQueue {
  protected override takeRetry(): BatchStep | undefined {
    this.lastWasRetry = this.isRetrying;
    return this.lastWasRetry ? this.takeBatch() : undefined;
  }
}

class DeadLettersRetries extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    super.onOutcome(step, outcome, now);
    if (this.unwrittenDeadLetter === undefined) return;
    const { deadLetterId: _, ...message } = this.unwrittenDeadLetter.message;
    this.unwrittenDeadLetter = { ...this.unwrittenDeadLetter, message };
  }
}

class DropsLostRetries extends SubscriptionQueue {
  override onOutcome(step: Step, outcome: Outcome, now: number): void {
    const dropped = this.lastWasRetry && outcome.kind === "session_lost";
    super.onOutcome(step, dropped ? { kind: "committed", durationMs: 1 } : outcome, now);
  }
}

class HandsOutHeld extends SubscriptionQueue {
  override hold(): void {}
}

class NoLimit extends ByteBudget {
  protected override hasRoom(): boolean {
    return true;
  }
}

class AllForOne extends ByteBudget {
  protected override hasRoom(_queue: QueueMemory, { inAll }: Demand): boolean {
    return this.usedBytes + inAll <= this.limitBytes;
  }
}

class OneRole extends ByteBudget {
  override addQueue(): QueueMemory {
    return super.addQueue("all");
  }
}

class RefusesLarge extends ByteBudget {
  override reserve(queue: QueueMemory, message: InboundMessage, admission: Admission): boolean {
    return memoryOf(message) <= this.limitBytes && super.reserve(queue, message, admission);
  }
}

class FirstLaneFirst extends QueueScheduler {
  override next(now: number): Step | Wait {
    for (const share of this.members.values()) if (this.turns.delete(share)) this.turns.add(share);
    return super.next(now);
  }
}

class PausesWithSession extends QueueScheduler {
  override next(now: number): Step | Wait {
    const ends = [...this.members.keys()].map(({ readyAt }) => readyAt).filter((at) => at > now && Number.isFinite(at));
    if (this.running + ends.length < this.sessions) return super.next(now);
    return { kind: "wait", waitMs: Math.min(...ends) - now };
  }
}

class ForgetsPausing extends QueueScheduler {
  override next(now: number): Step | Wait {
    const next = super.next(now);
    for (const [queue, share] of this.members) if (queue.readyAt > now) share.turns.delete(queue);
    return next;
  }
}

class MoreThanSessions extends QueueScheduler {
  constructor(sessions: number) {
    super(sessions + 1);
  }
}

const seeds = 5_000;
const queue = (Queue: typeof SubscriptionQueue): QueueMutant => ({ Queue, seeds });
const scheduler = (Scheduler: typeof QueueScheduler): QueueMutant => ({ Scheduler, seeds });
const budget = (Budget: typeof ByteBudget): QueueMutant => ({ Budget, seeds });

const mutants: Readonly<Record<string, QueueMutant>> = {
  "dead-letters the first message of a batch that failed": queue(DeadLettersFirstOfBatch),
  "tries a batch that failed again as it was": queue(NeverHalves),
  "tries what failed in another order": queue(OtherOrder),
  "skips a message": queue(SkipsOne),
  "takes a lost session for a commit": queue(LossMeansCommitted),
  "dead-letters a message that lost one session": queue(DeadLettersAfterOneLoss),
  "never dead-letters a message that loses its sessions": queue(ForgetsLosses),
  "counts losses of sessions in company": queue(LossesInCompany),
  "halves a batch that timed out": queue(HalvesAfterTimeout),
  "makes large batches of slow messages": queue(AlwaysLarge),
  "dead-letters after a transient failure": queue(DeadLettersTransient),
  "tries a batch whole after a transient failure": queue(KeepsTransientWhole),
  "takes a batch for committed of which a part was": queue(TakesPartForAll),
  "runs the committed part of a batch again": queue(ForgetsPart),
  "blames the first message of a batch for what a later one did": queue(BlamesFirstForPart),
  "forgets how often what was not tried now was tried before": queue(ForgetsWhatWasNotTried),
  "pauses before it halves a batch": queue(PausesBeforeHalving),
  "does not pause after a transient failure": queue(NoPause),
  "pauses no longer after more failures": queue(PauseNeverGrows),
  "pauses long for ever": queue(PauseNeverShort),
  "counts an attempt when Postgres was away": queue(CountsUnavailable),
  "takes a burial for done when Postgres was away": queue(DeadLettersBlindly),
  "goes on before a burial is done": queue(OvertakesBurial),
  "keeps the memory of what it deadLettered": queue(KeepsMemoryOfBuried),
  "keeps the memory when it is closed": queue(KeepsMemoryWhenClosed),
  "hands out two steps at a time": queue(TwoOut),
  "goes on when it is deposed": queue(IgnoresDeposition),
  "reports the progress of what waits only": queue(ProgressOfWaiting),
  "lets messages wait for all retries": queue(RetriesFirst),
  "dead-letters a retried dead letter anew": queue(DeadLettersRetries),
  "drops a retry whose session was lost": queue(DropsLostRetries),
  "hands out what is held back": queue(HandsOutHeld),
  "takes messages beyond the limit": budget(NoLimit),
  "lets one queue take what is another's": budget(AllForOne),
  "counts all queues as one role's": budget(OneRole),
  "never takes a message larger than the limit": budget(RefusesLarge),
  "serves the first queue first": scheduler(FirstLaneFirst),
  "keeps a session for a queue that pauses": scheduler(PausesWithSession),
  "has more steps out than sessions": scheduler(MoreThanSessions),
  "forgets a queue that pauses": scheduler(ForgetsPausing),
};

const mustHappen = [
  ...["committed", "failed", "timed_out", "transient", "session_lost", "unavailable", "deposed"].flatMap((outcome) => [
    `batch ${outcome}`,
    `retried batch ${outcome}`,
  ]),
  ...["committed", "transient", "session_lost", "unavailable", "deposed"].flatMap((outcome) => [
    `dead_letter ${outcome}`,
    `retried dead_letter ${outcome}`,
  ]),
  ...["committed but lost", "session lost otherwise", "woken", "closed", "held back", "discarded"],
];

/** The queues of subscriptions, and the scheduler that serves them. */
export const queues = simulation<QueueMutant>("queues", (seed, mutant) => new QueueWorld(seed, mutant), mutants, {
  seeds: 20_000,
  mustHappen,
});
