/**
 * One subscription and the processes that lead one after the other: some end in order and save what they have not run, some
 * are killed, and others hand in late what they had received alone. After everything that happens the rules are checked.
 */
import {
  ByteBudget,
  Discards,
  Lane,
  type LaneContext,
  type Outcome,
  type Step,
} from "../../../../src/bridge/lanes/index.js";
import type { InboundMessage } from "../../../../src/bridge/message.js";
import { Random } from "../../../simulator/random.js";
import { subscription } from "../support.js";
import { must, Violation } from "./simulated.js";

interface Row {
  readonly savedId: bigint;
  readonly message: InboundMessage;
}

const pageRows = 3;

class Succession {
  private readonly random: Random;
  private now = 0;
  private numbers = 0;
  private rows = 0n;
  private readonly table: Row[] = [];
  /** How often each message was committed; undefined: it was lost with a process that was killed. */
  private readonly commits = new Map<number, number>();
  private readonly killed = new Set<number>();
  /** Handed in late: their order is not that of the others. */
  private readonly late = new Set<number>();
  private lastCommitted = 0;
  private lane!: Lane;
  /** Committed by a process that was killed, and still in the table. */
  private mayRepeat = new Set<number>();

  constructor(
    seed: number,
    private readonly LaneClass: typeof Lane,
    private readonly count: (name: string) => void,
  ) {
    this.random = new Random(seed);
  }

  run(): void {
    for (let processes = this.random.between(2, 6); processes > 0; processes -= 1) {
      this.lane = this.begin();
      for (let events = this.random.between(0, 25); events > 0; events -= 1) this.somethingHappens();
      if (this.random.chance(0.4)) this.kill();
      else this.endInOrder();
    }
    this.lane = this.begin();
    for (let steps = 0; this.step(); steps += 1) must(steps < 10_000, "everything is done in the end");
    must(this.table.length === 0, "what is done is deleted from the table");
    for (let number = 1; number <= this.numbers; number += 1) {
      const isLost = this.killed.has(number);
      must(
        isLost || (this.commits.get(number) ?? 0) > 0,
        "everything is run that was not in a process that was killed",
      );
    }
  }

  private begin(): Lane {
    const settings = {
      ...{ maxBatchMessages: this.random.pick([1, 2, 100]), maxBatchBytes: 1_000_000, batchTargetMs: 100 },
      ...{ pauseMinMs: 10, pauseMaxMs: 80, retryTries: 3, sessionLostCode: "lost" },
      random: () => this.random.next(),
    };
    const context: LaneContext = { settings, budget: new ByteBudget(1_000_000), discards: new Discards(1) };
    return new this.LaneClass({ ...subscription, id: 1n }, context, this.table.length > 0);
  }

  private somethingHappens(): void {
    const { random } = this;
    if (random.chance(0.5))
      for (let burst = random.between(1, 5); burst > 0; burst -= 1) this.lane.offer(this.message());
    else if (random.chance(0.1)) this.handIn();
    else this.step();
  }

  private message(): InboundMessage {
    this.numbers += 1;
    return { id: `${this.numbers}`, subject: "s", payload: Buffer.from("p"), headers: undefined, receivedAt: this.now };
  }

  /** A process that does not lead had messages that the leader has not received. */
  private handIn(): void {
    for (let messages = this.random.between(1, 5); messages > 0; messages -= 1) {
      const message = this.message();
      this.late.add(this.numbers);
      this.table.push({ savedId: ++this.rows, message });
    }
    this.lane.lookForSaved();
    this.count("handed in");
  }

  /** @returns false: there is nothing to do */
  private step(): boolean {
    if (this.lane.readyAt === Number.POSITIVE_INFINITY) return false;
    this.now = Math.max(this.now, this.lane.readyAt);
    const step = this.lane.next(this.now);
    must(step !== undefined, "a lane that is ready has a step");
    this.lane.settle(step!, this.outcomeOf(step!), this.now);
    return true;
  }

  private outcomeOf(step: Step): Outcome {
    const { random } = this;
    if (random.chance(0.05)) return { kind: "unavailable" };
    if (step.kind === "fetch") return this.fetch(step.doneUpTo);
    must(step.kind === "batch", "only batches are run here");
    if (step.kind !== "batch") throw new Error("unreachable");
    if (random.chance(0.1)) return { kind: "transient", error: { code: "40001", message: "again" } };
    for (const { id } of step.messages) this.commit(Number(id));
    return { kind: "committed", durationMs: 1 };
  }

  private fetch(doneUpTo: bigint): Outcome {
    this.count("fetched");
    for (const { savedId, message } of this.table) {
      if (savedId <= doneUpTo) must(this.commits.has(Number(message.id)), "only what is done is deleted");
    }
    this.table.splice(0, this.table.filter(({ savedId }) => savedId <= doneUpTo).length);
    return { kind: "fetched", saved: this.table.slice(0, pageRows) };
  }

  private commit(number: number): void {
    const before = this.commits.get(number) ?? 0;
    this.commits.set(number, before + 1);
    if (before > 0) {
      must(this.mayRepeat.has(number), "only a page that was under way at a kill is run again");
      this.count("repeated");
    } else if (!this.late.has(number)) {
      must(number > this.lastCommitted, "messages are committed in order, over all processes");
      this.lastCommitted = number;
    }
  }

  private kill(): void {
    this.count("killed");
    for (const { id } of this.lane.unfinished) if (!this.commits.has(Number(id))) this.killed.add(Number(id));
    this.mayRepeat = new Set(
      this.table.map(({ message }) => Number(message.id)).filter((number) => this.commits.has(number)),
    );
    must(this.mayRepeat.size <= pageRows, "no more than a page is run again");
  }

  private endInOrder(): void {
    this.count("ended in order");
    this.lane.hold();
    for (let steps = this.random.between(0, 10); steps > 0; steps -= 1) this.step();
    this.lane.stop();
    const { savedDoneUpTo } = this.lane;
    for (const { savedId, message } of this.table) {
      if (savedId <= savedDoneUpTo)
        must(this.commits.has(Number(message.id)), "only what is done is deleted at the end");
    }
    this.table.splice(0, this.table.filter(({ savedId }) => savedId <= savedDoneUpTo).length);
    for (const message of this.lane.unfinished) this.table.push({ savedId: ++this.rows, message });
  }
}

/** Runs the histories of `count` seeds from 1 on. Returns the first broken rule, and what happened how often. */
export function runSuccessions(count: number, LaneClass: typeof Lane = Lane) {
  const counts = new Map<string, number>();
  let seed = 0;
  try {
    while (seed < count) {
      new Succession(++seed, LaneClass, (name) => counts.set(name, (counts.get(name) ?? 0) + 1)).run();
    }
    return { counts, failure: undefined };
  } catch (error) {
    if (!(error instanceof Violation)) throw Object.assign(error as Error, { seed });
    return { counts, failure: `seed ${seed}: ${error.message}` };
  }
}
