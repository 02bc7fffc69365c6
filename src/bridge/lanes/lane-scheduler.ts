/**
 * Shares a number of database sessions among lanes: each lane that has a step gets one in its turn, so that a lane with a
 * long queue, or one that pauses, does not keep the others waiting. A role never has all of them, however many lanes it has,
 * as long as there is another role: its functions may all wait for one lock. Pure: it runs nothing itself and has no clock.
 */
import { Fifo } from "../../runtime/index.js";
import type { Lane } from "./lane.js";
import type { Outcome } from "./outcome.js";
import type { Step } from "./step.js";

/** There is nothing to do now. */
export interface Wait {
  readonly kind: "wait";
  /** Ask again after this time; Infinity: not before {@link LaneScheduler.onReady} was called. */
  readonly waitMs: number;
}

/** What lanes of one role have out, and those of them that wait until that is less. */
interface RoleTurns {
  readonly name: string;
  lanes: number;
  running: number;
  readonly held: Fifo<Lane>;
}

export class LaneScheduler {
  /** Called when {@link next} may have a step where it had none. Set by the owner. */
  onReady: () => void = () => undefined;
  protected readonly members = new Set<Lane>();
  /** In the order of their turns. */
  protected readonly turns = new Fifo<Lane>();
  protected readonly pausing = new Set<Lane>();
  /** Those in {@link turns} or {@link pausing}. */
  readonly #waiting = new Set<Lane>();
  readonly #out = new Map<Step, { readonly lane: Lane; readonly role: RoleTurns }>();
  readonly #roles = new Map<string, RoleTurns>();
  /** The role of each member, as it was when it was added. */
  readonly #memberRoles = new Map<Lane, RoleTurns>();

  protected readonly sessions: number;

  /** @param sessions how many steps may be out at a time */
  constructor(sessions: number) {
    this.sessions = sessions;
  }

  get lanes(): ReadonlySet<Lane> {
    return this.members;
  }

  /** Steps that are out, those of removed lanes too. */
  get running(): number {
    return this.#out.size;
  }

  add(lane: Lane): void {
    this.members.add(lane);
    const { runAs } = lane.subscription;
    let role = this.#roles.get(runAs);
    if (role === undefined) this.#roles.set(runAs, (role = { name: runAs, lanes: 0, running: 0, held: new Fifo() }));
    role.lanes += 1;
    this.#memberRoles.set(lane, role);
    lane.onReady = () => this.#enqueue(lane);
    this.#enqueue(lane);
  }

  /** Closes the lane. A step of it that is out has its session until it is settled. */
  remove(lane: Lane): void {
    const role = this.#memberRoles.get(lane);
    if (this.members.delete(lane) && role !== undefined && --role.lanes === 0) {
      this.#roles.delete(role.name);
      for (let held = role.held.shift(); held !== undefined; held = role.held.shift()) this.#waiting.delete(held);
    }
    this.#memberRoles.delete(lane);
    if (this.pausing.delete(lane)) this.#waiting.delete(lane);
    lane.onReady = () => undefined;
    lane.close();
  }

  /** The next step of some lane, or how long there is none. The step is out until it is settled. */
  next(now: number): Step | Wait {
    if (this.#out.size >= this.sessions) return forever;
    for (const lane of this.pausing) {
      if (lane.readyAt > now) continue;
      this.pausing.delete(lane);
      this.turns.push(lane);
    }
    for (let lane = this.#takeTurn(); lane !== undefined; lane = this.#takeTurn()) {
      const role = this.#roleOf(lane);
      if (this.members.has(lane) && role.running >= this.mostOfRole) {
        role.held.push(lane);
        continue;
      }
      const step = lane.next(now);
      if (step !== undefined) {
        this.#waiting.delete(lane);
        role.running += 1;
        this.#out.set(step, { lane, role });
        return step;
      }
      if (lane.readyAt < Number.POSITIVE_INFINITY) this.pausing.add(lane);
      else this.#waiting.delete(lane);
    }
    let soonest = Number.POSITIVE_INFINITY;
    for (const { readyAt } of this.pausing) soonest = Math.min(soonest, readyAt);
    return soonest === Number.POSITIVE_INFINITY ? forever : { kind: "wait", waitMs: Math.max(0, soonest - now) };
  }

  /** Tells how a step went. Each step that was handed out is settled once, also after its lane was stopped or removed. */
  settle(step: Step, outcome: Outcome, now: number): void {
    const settled = this.#out.get(step);
    if (settled === undefined) return;
    const { lane, role } = settled;
    this.#out.delete(step);
    role.running -= 1;
    lane.settle(step, outcome, now);
    this.#enqueue(lane);
  }

  /** Postgres answers again: ends the pauses that lanes make because it did not. */
  wake(): void {
    for (const lane of this.members) lane.wake();
  }

  /** What lanes are offered from now on they keep, and do not hand out. */
  hold(): void {
    for (const lane of this.members) lane.hold();
  }

  /** Resolves with true when no lane has anything left that it may hand out, or with false when one was stopped before that. */
  async drain(): Promise<boolean> {
    return (await Promise.all([...this.members].map((lane) => lane.drain()))).every((done) => done);
  }

  /** Hands out nothing more: for a process that does not lead any more, or ends. */
  stop(): void {
    for (const lane of this.members) lane.stop();
  }

  /** How many steps of one role may be out: one session is left for the others, if there are any. */
  protected get mostOfRole(): number {
    return this.#roles.size > 1 ? Math.max(1, this.sessions - 1) : this.sessions;
  }

  #roleOf(lane: Lane): RoleTurns {
    return this.#memberRoles.get(lane) ?? { name: "", lanes: 0, running: 0, held: new Fifo() };
  }

  /** The lane whose turn it is: first those that were held back until their role has a session again. */
  #takeTurn(): Lane | undefined {
    for (const { running, held } of this.#roles.values()) {
      if (held.length > 0 && running < this.mostOfRole) return held.shift();
    }
    return this.turns.shift();
  }

  /** Puts the lane behind all that wait for a turn. */
  #enqueue(lane: Lane): void {
    if (!this.#waiting.has(lane) && lane.readyAt < Number.POSITIVE_INFINITY) {
      this.#waiting.add(lane);
      this.turns.push(lane);
    }
    this.onReady();
  }
}

const forever: Wait = { kind: "wait", waitMs: Number.POSITIVE_INFINITY };
