/** Session of a process with Postgres: statements are carried out in their order, each at once, and answered in that order. */
import { HawserError } from "../../../src/foundation/errors/index.js";
import type { Reply } from "../../../src/jobs-and-peers/queue/worker/statements.js";
import type { SimulatedProcess } from "../process.js";
import type { WorkerWorld } from "./world.js";

interface PendingStatement {
  isCarriedOut: boolean;
  carryOut(): void;
  answer(): void;
  fail(): void;
}

export class SimulatedSession {
  isUp = false;
  readonly #world: WorkerWorld;
  readonly #process: SimulatedProcess;
  #pending: PendingStatement[] = [];
  /** Times of the last statement and of the last answer. */
  #lastAt = 0;

  constructor(world: WorkerWorld, process: SimulatedProcess) {
    this.#world = world;
    this.#process = process;
  }

  /** True if all statements are answered. */
  get isQuiet(): boolean {
    return this.isUp && this.#pending.length === 0;
  }

  send<Result>(statement: () => Result, reply: Reply<Result>): void {
    const { random, schedule, counts, latencyMs } = this.#world;
    const failed = (why: string): void => reply.failed(new HawserError("store_failed", why));
    if (!this.isUp) {
      this.#process.after(0, () => failed("there is no session"));
      return;
    }
    let answer = (): void => failed("it was not carried out");
    const isRefused = random.chance(this.#world.faultRate);
    const pending: PendingStatement = {
      isCarriedOut: false,
      carryOut: () => {
        pending.isCarriedOut = true;
        if (isRefused) {
          counts.add("fault: statement failed");
          return;
        }
        try {
          const result = statement();
          answer = () => reply.answered(result);
        } catch (error) {
          if (!(error instanceof HawserError)) throw error;
          answer = () => reply.failed(error);
        }
      },
      answer: () => answer(),
      fail: () => failed("the session is lost"),
    };
    this.#pending.push(pending);
    // None overtakes those before it.
    const carriedOutAt = Math.max(this.#lastAt, schedule.now) + random.delay(latencyMs);
    this.#lastAt = carriedOutAt + random.delay(latencyMs);
    schedule.after(carriedOutAt - schedule.now, () => this.#has(pending) && pending.carryOut());
    schedule.after(this.#lastAt - schedule.now, () => this.#process.deliver(() => this.#answer(pending)));
  }

  #has(pending: PendingStatement): boolean {
    return this.#pending.includes(pending);
  }

  #answer(pending: PendingStatement): void {
    if (!this.#has(pending)) return;
    this.#pending.splice(this.#pending.indexOf(pending), 1);
    pending.answer();
  }

  /** Ends the connection. Postgres may carry out some of what was sent; nothing of it is answered. */
  cut(): void {
    const { random, counts } = this.#world;
    const lost = this.#pending.splice(0);
    let isRead = true;
    for (const pending of lost) {
      isRead &&= pending.isCarriedOut || random.chance(0.4);
      if (pending.isCarriedOut) counts.add("fault: answer lost");
      else if (isRead) {
        pending.carryOut();
        counts.add("fault: carried out after the cut");
      }
    }
    this.isUp = false;
    for (const pending of lost) this.#process.after(0, () => pending.fail());
  }
}
