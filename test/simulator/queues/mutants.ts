/** Departures from the rules, each of which the simulation must catch: they show that it can fail. */

import { type InboundMessage, memoryOf } from "../../../src/nats/bridge/message.js";
import {
  type Admission,
  ByteBudget,
  type Outcome,
  type QueueMemory,
  QueueScheduler,
  type Step,
  SubscriptionQueue,
  type Wait,
} from "../../../src/nats/bridge/queue/index.js";
import {
  type BatchRun,
  type Consequence,
  type QueueRules,
  queueRules,
  type RunOutcome,
} from "../../../src/nats/bridge/queue/rules.js";
import { simulation } from "../simulation.js";
import { type QueueMutant, QueueWorld } from "./world.js";

const { nextKind, afterBatch, afterDeadLetter } = queueRules;
const seeds = 5_000;
const committed = { kind: "committed", durationMs: 1 } as const;

const rules = (changed: Partial<QueueRules>): QueueMutant => ({ rules: changed, seeds });
const queue = (Queue: typeof SubscriptionQueue): QueueMutant => ({ Queue, seeds });
const scheduler = (Scheduler: typeof QueueScheduler): QueueMutant => ({ Scheduler, seeds });
const budget = (Budget: typeof ByteBudget): QueueMutant => ({ Budget, seeds });

/** Another outcome of a batch is followed. */
const outcome = (change: (outcome: RunOutcome, run: BatchRun) => RunOutcome): QueueMutant =>
  rules({ afterBatch: (run, given) => afterBatch(run, change(given, run)) });

/** An outcome of a batch, or of a part of it, counts as a failure of the function. */
const failing = (kind: "timed_out" | "transient"): QueueMutant =>
  outcome((given) => {
    if (given.kind === kind) return { kind: "failed", error: given.error };
    if (given.kind !== "partly" || given.failed?.outcome.kind !== kind) return given;
    const { failed } = given;
    return { ...given, failed: { ...failed, outcome: { kind: "failed", error: failed.outcome.error } } };
  });

/** Something else follows from the outcome of a batch. */
const following = (
  change: (right: Consequence, run: BatchRun, outcome: RunOutcome) => Partial<Consequence>,
): QueueMutant =>
  rules({
    afterBatch: (run, given) => {
      const right = afterBatch(run, given);
      return { ...right, ...change(right, run, given) };
    },
  });

/** The batch had another part. */
const part = (change: (run: BatchRun, outcome: RunOutcome) => Partial<BatchRun["part"]>): QueueMutant =>
  rules({ afterBatch: (run, given) => afterBatch({ ...run, part: { ...run.part, ...change(run, given) } }, given) });

/** Another outcome of a step is reported. */
const reported = (change: (outcome: Outcome, step: Step) => Outcome): QueueMutant =>
  queue(
    class extends SubscriptionQueue {
      override onOutcome(step: Step, given: Outcome, now: number): void {
        super.onOutcome(step, change(given, step), now);
      }
    },
  );

const tried = ({ part }: BatchRun) => ({ ...part, attempts: part.attempts + 1 });

class OtherOrder extends SubscriptionQueue {
  readonly #seen = new Set<InboundMessage>();

  override next(now: number): Step | undefined {
    const step = super.next(now);
    if (step?.kind !== "batch") return step;
    const wasTried = this.#seen.has(step.messages[0]!);
    for (const message of step.messages) this.#seen.add(message);
    return wasTried ? Object.assign(step, { messages: step.messages.toReversed() }) : step;
  }
}

class SkipsOne extends SubscriptionQueue {
  override next(now: number): Step | undefined {
    const step = super.next(now);
    if (step?.kind !== "batch" || step.messages.length === 1) return step;
    return Object.assign(step, { messages: step.messages.slice(0, -1) });
  }
}

class PauseNeverGrows extends SubscriptionQueue {
  constructor(...[subscription, context, options]: ConstructorParameters<typeof SubscriptionQueue>) {
    const { settings } = context;
    const constant = { ...settings, batchPauseMaxMs: settings.batchPauseMinMs };
    super(subscription, { ...context, settings: constant }, options);
  }
}

class KeepsMemoryOfBuried extends SubscriptionQueue {
  readonly #budget: ByteBudget;

  constructor(...[subscription, context, options]: ConstructorParameters<typeof SubscriptionQueue>) {
    super(subscription, context, options);
    this.#budget = context.budget;
  }

  override onOutcome(step: Step, given: Outcome, now: number): void {
    super.onOutcome(step, given, now);
    if (step.kind === "dead_letter" && given.kind === "committed")
      this.#budget.reserve(this.#budget.addQueue(""), step.message);
  }
}

class KeepsMemoryWhenClosed extends SubscriptionQueue {
  override close(): void {
    this.stop();
  }
}

class ProgressOfWaiting extends SubscriptionQueue {
  #step: Step | undefined;

  override next(now: number): Step | undefined {
    const step = super.next(now);
    this.#step = step ?? this.#step;
    return step;
  }

  override onOutcome(step: Step, given: Outcome, now: number): void {
    this.#step = undefined;
    super.onOutcome(step, given, now);
  }

  override get oldestReceivedAt(): number | undefined {
    return this.#step?.kind === "dead_letter" ? undefined : super.oldestReceivedAt;
  }
}

class HandsOutHeld extends SubscriptionQueue {
  override hold(): void {}
}

class NoLimit extends ByteBudget {
  override reserve(queue: QueueMemory, message: InboundMessage, admission: Admission): boolean {
    return super.reserve(queue, message, { ...admission, isKept: true });
  }
}

class AllForOne extends ByteBudget {
  override reserve(queue: QueueMemory, message: InboundMessage, admission: Admission): boolean {
    const fits = this.usedBytes + memoryOf(message) <= this.limitBytes;
    return super.reserve(queue, message, { ...admission, isKept: fits });
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

const mutants: Readonly<Record<string, QueueMutant>> = {
  "dead-letters the first message of a batch that failed": part((_run, { kind }) =>
    kind === "failed" ? { count: 1 } : {},
  ),
  "tries a batch that failed again as it was": following(({ isBisected }, run) =>
    isBisected ? { again: [tried(run)], isBisected: false } : {},
  ),
  "tries what failed in another order": queue(OtherOrder),
  "skips a message": queue(SkipsOne),
  "takes a lost session for a commit": outcome((given) => (given.kind === "session_lost" ? committed : given)),
  "dead-letters a message that lost one session": part(() => ({ losses: 1 })),
  "never dead-letters a message that loses its sessions": part(() => ({ losses: 0 })),
  "counts losses of sessions in company": following(({ isBisected, again }) =>
    isBisected ? { again: again.map((half) => ({ ...half, losses: 1 })) } : {},
  ),
  "halves a batch that timed out": failing("timed_out"),
  "makes large batches of slow messages": rules({ batchLimit: (_limit, { settings }) => settings.maxBatchMessages }),
  "dead-letters after a transient failure": failing("transient"),
  "tries a batch whole after a transient failure": following((_right, run, { kind }) =>
    kind === "transient" ? { again: [tried(run)], isBisected: false, pauses: true } : {},
  ),
  "takes a batch for committed of which a part was": outcome((given) => (given.kind === "partly" ? committed : given)),
  "runs the committed part of a batch again": outcome((given, { part: { count } }) =>
    given.kind === "partly"
      ? { ...given, committed: 0, ...(given.failed && { failed: { ...given.failed, count } }) }
      : given,
  ),
  "blames the first message of a batch for what a later one did": following(({ deadLetter }, { step }) =>
    deadLetter === undefined ? {} : { deadLetter: { ...deadLetter, message: step.messages[0]! } },
  ),
  "forgets how often what was not tried now was tried before": part((_run, { kind }) =>
    kind === "partly" ? { attempts: 0 } : {},
  ),
  "pauses before it halves a batch": following(({ isBisected, pauses }, _run, { kind }) => ({
    pauses: pauses || (isBisected && kind === "transient"),
  })),
  "does not pause after a transient failure": following(({ pauses }, _run, { kind }) => ({
    pauses: pauses && kind !== "transient",
  })),
  "pauses no longer after more failures": queue(PauseNeverGrows),
  "pauses long for ever": following(() => ({ hasProgressed: false })),
  "counts an attempt when Postgres was away": following((_right, run, { kind }) =>
    kind === "unavailable" ? { again: [tried(run)] } : {},
  ),
  "takes a burial for done when Postgres was away": rules({
    afterDeadLetter: (step, given) => afterDeadLetter(step, given.kind === "unavailable" ? committed : given),
  }),
  "goes on before a burial is done": rules({
    afterDeadLetter: (step, given) => ({ ...afterDeadLetter(step, given), deadLetter: undefined }),
  }),
  "keeps the memory of what it deadLettered": queue(KeepsMemoryOfBuried),
  "keeps the memory when it is closed": queue(KeepsMemoryWhenClosed),
  "hands out two steps at a time": rules({ nextKind: (state) => nextKind({ ...state, isRunning: false }) }),
  "goes on when it is deposed": reported((given) => (given.kind === "deposed" ? { kind: "unavailable" } : given)),
  "reports the progress of what waits only": queue(ProgressOfWaiting),
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
  ...["committed", "failed", "timed_out", "transient", "session_lost", "unavailable", "deposed"].map(
    (outcome) => `batch ${outcome}`,
  ),
  ...["committed", "transient", "session_lost", "unavailable", "deposed"].map((outcome) => `dead_letter ${outcome}`),
  ...["committed but lost", "session lost otherwise", "woken", "closed", "held back", "discarded"],
];

/** The queues of subscriptions, and the scheduler that serves them. */
export const queues = simulation<QueueMutant>("queues", (seed, mutant) => new QueueWorld(seed, mutant), mutants, {
  seeds: 20_000,
  mustHappen,
});
