/**
 * Simulation of a subscription and of the processes that lead one after the other: they write to the table the messages
 * that have no memory; some end gracefully and save the messages that they have not run, some are killed, and others
 * hand in late the messages that they alone had received. The rules are checked after every event.
 */
import type { InboundMessage } from "../../../src/nats/bridge/message.js";
import {
  ByteBudget,
  Discards,
  type Outcome,
  type QueueContext,
  type SpillStep,
  type Step,
  SubscriptionQueue,
} from "../../../src/nats/bridge/queue/index.js";
import { type QueueRules, queueRules } from "../../../src/nats/bridge/queue/rules.js";
import { subscription } from "../../bridge/queue/support.js";
import { Random } from "../random.js";
import { Counts } from "../records.js";
import type { MutantOptions } from "../simulation.js";
import { must } from "./simulated.js";

interface Row {
  readonly savedId: bigint;
  readonly message: InboundMessage;
}

/** Rules and the class that a mutant replaces. */
export interface SuccessionMutant extends MutantOptions {
  readonly rules?: Partial<QueueRules>;
  readonly Queue?: typeof SubscriptionQueue;
}

/** A statement that is under way: Postgres does it at some time before the answer comes, or not at all. */
interface Pending<S, O> {
  readonly step: S;
  outcome: O | undefined;
}

const pageRows = 3;

export class Succession {
  readonly counts = new Counts();
  readonly #random: Random;
  #now = 0;
  #numbers = 0;
  #rows = 0n;
  readonly #table: Row[] = [];
  /** Number of commits of each message; undefined if it was lost with a process that was killed. */
  readonly #commits = new Map<number, number>();
  readonly #killed = new Set<number>();
  /** Handed in late: their order is not that of the others. */
  readonly #late = new Set<number>();
  #lastCommitted = 0;
  #queue!: SubscriptionQueue;
  /** Still in the table although they were committed, by a process that was killed; or in it without an answer that says so. */
  readonly #mayRepeat = new Set<number>();
  #step: Pending<Step, Outcome> | undefined;
  #spill: Pending<SpillStep, readonly bigint[]> | undefined;
  #maxBatch = 0;

  readonly #mutant: SuccessionMutant;

  constructor(seed: number, mutant: SuccessionMutant = {}) {
    this.#mutant = mutant;
    this.#random = new Random(seed);
  }

  run(): void {
    for (let processes = this.#random.between(2, 6); processes > 0; processes -= 1) {
      this.#queue = this.#begin();
      for (let events = this.#random.between(0, 25); events > 0; events -= 1) this.#somethingHappens();
      if (this.#random.chance(0.4)) this.#kill();
      else this.#endInOrder();
    }
    this.#queue = this.#begin();
    for (let steps = 0; this.#goOn(); steps += 1) must(steps < 10_000, "everything is done in the end");
    must(this.#table.length === 0, "what is done is deleted from the table");
    for (let number = 1; number <= this.#numbers; number += 1) {
      const isLost = this.#killed.has(number);
      must(
        isLost || (this.#commits.get(number) ?? 0) > 0,
        "everything is run that was not in a process that was killed",
      );
    }
  }

  #begin(): SubscriptionQueue {
    this.#maxBatch = this.#random.pick([1, 2, 100]);
    const settings = {
      ...{ maxBatchMessages: this.#maxBatch, maxBatchBytes: 1_000_000, batchTargetMs: 100 },
      ...{ batchPauseMinMs: 10, batchPauseMaxMs: 80, sessionLostCode: "lost" },
      random: () => this.#random.next(),
    };
    const context: QueueContext = {
      settings,
      budget: new ByteBudget(1_000_000),
      discards: new Discards(1),
    };
    const { rules, Queue = SubscriptionQueue } = this.#mutant;
    return new Queue({ ...subscription, id: 1n }, context, {
      hasSaved: this.#table.length > 0,
      rules: { ...queueRules, ...rules },
    });
  }

  #somethingHappens(): void {
    const random = this.#random;
    if (random.chance(0.5))
      for (let burst = random.between(1, 5); burst > 0; burst -= 1) this.#queue.offer(this.#message());
    else if (random.chance(0.1)) this.#handIn();
    else if (random.chance(0.3)) this.#beginSpill();
    else this.#goOn();
  }

  #message(): InboundMessage {
    this.#numbers += 1;
    return {
      id: `${this.#numbers}`,
      subject: "s",
      payload: Buffer.from("p"),
      headers: undefined,
      receivedAt: this.#now,
    };
  }

  /** A process that does not lead had messages that the leader has not received. */
  #handIn(): void {
    for (let messages = this.#random.between(1, 5); messages > 0; messages -= 1) {
      const message = this.#message();
      this.#late.add(this.#numbers);
      this.#table.push({ savedId: ++this.#rows, message });
    }
    this.#queue.expectSaved();
    this.counts.add("handed in");
  }

  #beginSpill(): void {
    if (this.#spill !== undefined) return;
    const step = this.#queue.takeSpill(this.#random.pick([1, 600, 10_000]));
    if (step === undefined) return;
    this.counts.add("spilled");
    if (this.#queue.length > step.messages.length) this.counts.add("spilled in pieces");
    this.#spill = { step, outcome: undefined };
  }

  /** Something that is under way goes on, or something is begun. @returns false: there is nothing to do */
  #goOn(): boolean {
    const spill = this.#spill;
    const step = this.#step;
    const random = this.#random;
    if (spill !== undefined && random.chance(0.5)) this.#goOnSpilling(spill);
    else if (step !== undefined) this.#goOnRunning(step);
    else if (this.#queue.readyAt !== Number.POSITIVE_INFINITY) {
      this.#now = Math.max(this.#now, this.#queue.readyAt);
      const next = this.#queue.next(this.#now);
      must(next !== undefined, "a queue that is ready has a step");
      this.#step = { step: next!, outcome: undefined };
    } else return spill !== undefined;
    return true;
  }

  #goOnSpilling(spill: Pending<SpillStep, readonly bigint[]>): void {
    const random = this.#random;
    if (spill.outcome === undefined && random.chance(0.8)) {
      spill.outcome = this.#write(spill.step.messages);
      return;
    }
    this.#spill = undefined;
    const before = this.#queue.length;
    const isLost = random.chance(0.1);
    if (isLost && spill.outcome !== undefined) {
      this.counts.add("answer to a spill lost");
      for (const { id } of spill.step.messages) this.#mayRepeat.add(Number(id));
    }
    this.#queue.onSpilled(spill.step, isLost ? undefined : spill.outcome);
    must(this.#queue.length <= before, "what is in the table does not come into memory by being written");
  }

  #write(messages: readonly InboundMessage[]): readonly bigint[] {
    for (const message of messages) this.#table.push({ savedId: ++this.#rows, message });
    return messages.map((_, index) => this.#rows - BigInt(messages.length - 1 - index));
  }

  #goOnRunning(pending: Pending<Step, Outcome>): void {
    if (pending.outcome === undefined && this.#random.chance(0.7)) {
      pending.outcome = this.#outcomeOf(pending.step);
      return;
    }
    this.#step = undefined;
    this.#queue.onOutcome(pending.step, pending.outcome ?? { kind: "unavailable" }, this.#now);
  }

  #outcomeOf(step: Step): Outcome {
    const random = this.#random;
    if (step.kind === "fetch") return this.#fetch(step.done);
    must(step.kind === "batch", "only batches are run here");
    if (step.kind !== "batch") throw new Error("unreachable");
    if (random.chance(0.1)) return { kind: "transient", error: { code: "40001", message: "again" } };
    for (const { id } of step.messages) this.#commit(Number(id));
    this.#delete(step.savedIds);
    return { kind: "committed", durationMs: 1 };
  }

  #fetch(done: readonly bigint[]): Outcome {
    this.counts.add("fetched");
    this.#delete(done);
    return { kind: "fetched", saved: this.#table.slice(0, pageRows) };
  }

  #delete(done: readonly bigint[]): void {
    for (const { savedId, message } of this.#table)
      if (done.includes(savedId)) must(this.#commits.has(Number(message.id)), "only what is done is deleted");
    const left = this.#table.filter(({ savedId }) => !done.includes(savedId));
    this.#table.splice(0, this.#table.length, ...left);
  }

  #commit(number: number): void {
    const before = this.#commits.get(number) ?? 0;
    this.#commits.set(number, before + 1);
    if (before > 0) {
      must(this.#mayRepeat.has(number), "only what was under way at a kill, or had no answer, is run again");
      this.counts.add("repeated");
    } else if (!this.#late.has(number)) {
      must(number > this.#lastCommitted, "messages are committed in order, over all processes");
      this.#lastCommitted = number;
    }
  }

  #kill(): void {
    this.counts.add("killed");
    const step = this.#step;
    const spill = this.#spill;
    this.#step = this.#spill = undefined;
    // What was sent may be done by Postgres all the same.
    if (step !== undefined && step.outcome === undefined && this.#random.chance(0.3)) this.#outcomeOf(step.step);
    if (spill !== undefined && spill.outcome === undefined && this.#random.chance(0.3))
      this.#write(spill.step.messages);
    const saved = new Set(this.#table.map(({ message }) => Number(message.id)));
    for (const { id } of this.#queue.unfinished)
      if (!this.#commits.has(Number(id)) && !saved.has(Number(id))) this.#killed.add(Number(id));
    this.#mayRunAgain();
  }

  /** Permits messages to run again that were being written while they ran: they are still in the table. */
  #mayRunAgain(): void {
    const again = this.#table
      .map(({ message }) => Number(message.id))
      .filter((number) => this.#commits.has(number) && !this.#mayRepeat.has(number));
    must(again.length <= this.#maxBatch, "no more than a batch that was being written is run again");
    for (const number of again) this.#mayRepeat.add(number);
  }

  #endInOrder(): void {
    this.counts.add("ended in order");
    if (this.#random.chance(0.5)) this.#queue.hold();
    for (let steps = this.#random.between(0, 10); steps > 0; steps -= 1) this.#goOn();
    this.#queue.stop();
    while (this.#step !== undefined || this.#spill !== undefined) this.#goOn();
    this.#mayRunAgain();
    this.#write([...this.#queue.unfinished]);
  }
}
