/** Departures from the rules, each of which the simulation must catch: they show that it can fail. */
import {
  type Admission,
  type BatchStep,
  ByteBudget,
  type FunctionError,
  Lane,
  type LaneMemory,
  LaneScheduler,
  type Outcome,
  type RetryStep,
  type Step,
  type Wait,
  type Wanted,
} from "../../../../src/bridge/lanes/index.js";
import type { Part } from "../../../../src/bridge/lanes/message-queue.js";
import { type InboundMessage, memoryOf } from "../../../../src/bridge/message.js";
import { unchanged, type Variant } from "./world.js";

class BuriesFirstOfBatch extends Lane {
  protected override afterFailure(step: BatchStep, tried: Part, error: FunctionError): void {
    this.condemn(step, error, tried.attempts);
  }
}

class NeverHalves extends Lane {
  protected override halve(tried: Part): void {
    this.messages.again(tried);
  }
}

class OtherOrder extends Lane {
  protected override takeBatch(): BatchStep {
    const batch = super.takeBatch();
    return this.part!.attempts === 0 ? batch : { ...batch, messages: batch.messages.toReversed() };
  }
}

class SkipsOne extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    super.settle(step, outcome, now);
    if (step.kind === "batch" && outcome.kind === "committed" && this.length > 0) this.messages.finish(1);
  }
}

class LossMeansCommitted extends Lane {
  protected override afterSessionLoss(_step: BatchStep, tried: Part): void {
    this.messages.finish(tried.count);
  }
}

class BuriesAfterOneLoss extends Lane {
  protected override afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    super.afterSessionLoss(step, { ...tried, losses: 1 }, message);
  }
}

class ForgetsLosses extends Lane {
  protected override afterSessionLoss(step: BatchStep, tried: Part, message: string): void {
    super.afterSessionLoss(step, { ...tried, losses: 0 }, message);
  }
}

class LossesInCompany extends Lane {
  protected override halve(tried: Part): void {
    super.halve({ ...tried, losses: 1 });
  }
}

class HalvesAfterTimeout extends Lane {
  protected override afterTimeout(step: BatchStep, tried: Part, error: FunctionError): void {
    this.size.timedOut();
    this.afterFailure(step, tried, error);
  }
}

class AlwaysLarge extends Lane {
  protected override takeBatch(): BatchStep {
    for (let times = 0; times < 10; times++) this.size.committed(this.size.limit, 0);
    return super.takeBatch();
  }
}

class BuriesTransient extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const transient = step.kind === "batch" && outcome.kind === "transient";
    super.settle(step, transient ? { kind: "failed", error: outcome.error } : outcome, now);
  }
}

class KeepsTransientWhole extends Lane {
  protected override afterTransient(tried: Part, now: number): void {
    this.messages.again(tried);
    this.pause.begin(now);
  }
}

type Partly = Extract<Outcome, { kind: "partly" }>;

class TakesPartForAll extends Lane {
  protected override settlePartly(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    this.settleBatch(step, part, { kind: "committed", durationMs: outcome.durationMs }, now);
  }
}

class ForgetsPart extends Lane {
  protected override settlePartly(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    super.settlePartly(
      step,
      part,
      { ...outcome, committed: 0, ...(outcome.failed && { failed: { ...outcome.failed, count: part.count } }) },
      now,
    );
  }
}

class BlamesFirstForPart extends Lane {
  protected override settlePartly(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    const first = Array<InboundMessage>(step.messages.length).fill(step.messages[0]!);
    super.settlePartly({ ...step, messages: first }, part, outcome, now);
  }
}

class ForgetsWhatWasNotTried extends Lane {
  protected override settlePartly(step: BatchStep, part: Part, outcome: Partly, now: number): void {
    super.settlePartly(step, { ...part, attempts: 0 }, outcome, now);
  }
}

class PausesBeforeHalving extends Lane {
  protected override afterTransient(tried: Part, now: number): void {
    super.afterTransient(tried, now);
    if (tried.count > 1) this.pause.begin(now);
  }
}

class NoPause extends Lane {
  protected override afterTransient(tried: Part): void {
    if (tried.count > 1) this.halve(tried);
    else this.messages.again(tried);
  }
}

class PauseNeverGrows extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    this.pause.forget();
    super.settle(step, outcome, now);
  }
}

class PauseNeverShort extends Lane {
  override next(now: number): Step | undefined {
    this.pause.forget = () => undefined;
    return super.next(now);
  }
}

class CountsUnavailable extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const { part } = this;
    if (outcome.kind === "unavailable" && part !== undefined) this.part = { ...part, attempts: part.attempts + 1 };
    super.settle(step, outcome, now);
  }
}

class BuriesBlindly extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const done = step.kind === "bury" && outcome.kind === "unavailable";
    super.settle(step, done ? { kind: "committed", durationMs: 1 } : outcome, now);
  }
}

class OvertakesBurial extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const { verdict } = this;
    super.settle(step, outcome, now);
    if (verdict !== undefined && this.verdict === verdict) this.verdict = undefined;
  }
}

class KeepsMemoryOfBuried extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    super.settle(step, outcome, now);
    if (step.kind === "bury" && outcome.kind === "committed") this.context.budget.join("").take(step.message);
  }
}

class KeepsMemoryWhenClosed extends Lane {
  override close(): void {
    this.stop();
  }
}

class TwoOut extends Lane {
  override get readyAt(): number {
    return this.stopped || this.length === 0 ? Number.POSITIVE_INFINITY : this.pause.until;
  }
}

class IgnoresDeposition extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    super.settle(step, outcome.kind === "deposed" ? { kind: "unavailable" } : outcome, now);
  }
}

class ProgressOfWaiting extends Lane {
  override get oldestReceivedAt(): number | undefined {
    return this.out?.kind === "bury" ? undefined : super.oldestReceivedAt;
  }
}

class RetriesFirst extends Lane {
  protected override takeRetry(): RetryStep | undefined {
    const job = this.retries.first;
    return job && { kind: "retry", subscription: this.subscription, job };
  }
}

class BuriesRetries extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    super.settle(step, outcome, now);
    if (this.verdict?.kind !== "keep") return;
    this.verdict = { ...this.verdict, kind: "bury", message: this.verdict.job.message };
  }
}

class DropsLostRetries extends Lane {
  override settle(step: Step, outcome: Outcome, now: number): void {
    const dropped = step.kind === "retry" && outcome.kind === "session_lost";
    super.settle(step, dropped ? { kind: "committed", durationMs: 1 } : outcome, now);
  }
}

class HandsOutHeld extends Lane {
  override hold(): void {}
}

class NoLimit extends ByteBudget {
  protected override hasRoom(): boolean {
    return true;
  }
}

class AllForOne extends ByteBudget {
  protected override hasRoom(_lane: LaneMemory, { inAll }: Wanted): boolean {
    return this.usedBytes + inAll <= this.limitBytes;
  }
}

class OneRole extends ByteBudget {
  override join(): LaneMemory {
    return super.join("all");
  }
}

class RefusesLarge extends ByteBudget {
  override take(lane: LaneMemory, message: InboundMessage, admission: Admission): boolean {
    return memoryOf(message) <= this.limitBytes && super.take(lane, message, admission);
  }
}

class FirstLaneFirst extends LaneScheduler {
  override next(now: number): Step | Wait {
    const waiting = new Set<Lane>();
    for (let lane = this.turns.shift(); lane !== undefined; lane = this.turns.shift()) waiting.add(lane);
    for (const lane of this.members) if (waiting.has(lane)) this.turns.push(lane);
    return super.next(now);
  }
}

class PausesWithSession extends LaneScheduler {
  override next(now: number): Step | Wait {
    if (this.running + this.pausing.size < this.sessions) return super.next(now);
    const ends = Math.min(...[...this.pausing].map((lane) => lane.readyAt));
    return ends <= now ? super.next(now) : { kind: "wait", waitMs: ends - now };
  }
}

class ForgetsPausing extends LaneScheduler {
  override next(now: number): Step | Wait {
    const next = super.next(now);
    this.pausing.clear();
    return next;
  }
}

class MoreThanSessions extends LaneScheduler {
  constructor(sessions: number) {
    super(sessions + 1);
  }
}

const lane = (Mutant: typeof Lane): Variant => ({ ...unchanged, Lane: Mutant });
const scheduler = (Mutant: typeof LaneScheduler): Variant => ({ ...unchanged, Scheduler: Mutant });
const budget = (Mutant: typeof ByteBudget): Variant => ({ ...unchanged, Budget: Mutant });

export const mutants: Readonly<Record<string, Variant>> = {
  "buries the first message of a batch that failed": lane(BuriesFirstOfBatch),
  "tries a batch that failed again as it was": lane(NeverHalves),
  "tries what failed in another order": lane(OtherOrder),
  "skips a message": lane(SkipsOne),
  "takes a lost session for a commit": lane(LossMeansCommitted),
  "buries a message that lost one session": lane(BuriesAfterOneLoss),
  "never buries a message that loses its sessions": lane(ForgetsLosses),
  "counts losses of sessions in company": lane(LossesInCompany),
  "halves a batch that timed out": lane(HalvesAfterTimeout),
  "makes large batches of slow messages": lane(AlwaysLarge),
  "buries after a transient failure": lane(BuriesTransient),
  "tries a batch whole after a transient failure": lane(KeepsTransientWhole),
  "takes a batch for committed of which a part was": lane(TakesPartForAll),
  "runs the committed part of a batch again": lane(ForgetsPart),
  "blames the first message of a batch for what a later one did": lane(BlamesFirstForPart),
  "forgets how often what was not tried now was tried before": lane(ForgetsWhatWasNotTried),
  "pauses before it halves a batch": lane(PausesBeforeHalving),
  "does not pause after a transient failure": lane(NoPause),
  "pauses no longer after more failures": lane(PauseNeverGrows),
  "pauses long for ever": lane(PauseNeverShort),
  "counts an attempt when Postgres was away": lane(CountsUnavailable),
  "takes a burial for done when Postgres was away": lane(BuriesBlindly),
  "goes on before a burial is done": lane(OvertakesBurial),
  "keeps the memory of what it buried": lane(KeepsMemoryOfBuried),
  "keeps the memory when it is closed": lane(KeepsMemoryWhenClosed),
  "hands out two steps at a time": lane(TwoOut),
  "goes on when it is deposed": lane(IgnoresDeposition),
  "reports the progress of what waits only": lane(ProgressOfWaiting),
  "lets messages wait for all retries": lane(RetriesFirst),
  "buries a retried dead letter anew": lane(BuriesRetries),
  "drops a retry whose session was lost": lane(DropsLostRetries),
  "hands out what is held back": lane(HandsOutHeld),
  "takes messages beyond the limit": budget(NoLimit),
  "lets one lane take what is another's": budget(AllForOne),
  "counts all lanes as one role's": budget(OneRole),
  "never takes a message larger than the limit": budget(RefusesLarge),
  "serves the first lane first": scheduler(FirstLaneFirst),
  "keeps a session for a lane that pauses": scheduler(PausesWithSession),
  "has more steps out than sessions": scheduler(MoreThanSessions),
  "forgets a lane that pauses": scheduler(ForgetsPausing),
};
