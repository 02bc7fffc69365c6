import type { Schedule } from "./schedule.js";

/** A process. It may be killed, or stand still for a while: what happens to it meanwhile waits until it goes on. */
export class SimulatedProcess {
  isDead = false;
  #held: (() => void)[] | undefined;
  readonly #schedule: Schedule;

  constructor({ schedule }: { schedule: Schedule }) {
    this.#schedule = schedule;
  }

  get isStalled(): boolean {
    return this.#held !== undefined;
  }

  kill(): void {
    this.isDead = true;
  }

  stall(): void {
    this.#held ??= [];
  }

  wake(): void {
    for (const run of this.takeHeld()) this.deliver(run);
  }

  /** Goes on. @returns what has waited */
  protected takeHeld(): readonly (() => void)[] {
    const held = this.#held ?? [];
    this.#held = undefined;
    return held;
  }

  /** Runs when the process does: at once, when it goes on, or never. */
  deliver(run: () => void): void {
    if (this.isDead) return;
    if (this.#held === undefined) run();
    else this.#held.push(run);
  }

  /** Delivers later. */
  after(delayMs: number, run: () => void): void {
    this.#schedule.after(delayMs, () => this.deliver(run));
  }
}
