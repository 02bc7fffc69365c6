import { Random } from "./random.js";
import { Counts, Violation } from "./records.js";
import { Schedule } from "./schedule.js";

/** What a run has: random numbers, virtual time, and counts of what has happened. Everything follows from the seed. */
export class SimulatedWorld {
  readonly random: Random;
  readonly schedule = new Schedule();
  readonly counts = new Counts();
  #steps = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  /**
   * Runs what is scheduled up to a time.
   *
   * @param maxSteps limit of all events of the run
   * @param isOver called after each event with the number of events; true ends the phase early
   * @throws Violation
   */
  protected runUntil(time: number, maxSteps: number, isOver: (steps: number) => boolean = () => false): void {
    while (this.schedule.step(time)) {
      this.#steps += 1;
      if (this.#steps > maxSteps) throw new Violation(`went in circles: ${maxSteps} steps`);
      if (isOver(this.#steps)) return;
    }
    this.schedule.now = Math.max(this.schedule.now, time);
  }

  /** Plans each kind of fault, by default one to three times. */
  protected planFaults<Kind>(
    kinds: readonly Kind[],
    times: number | undefined,
    at: () => number,
    inject: (kind: Kind) => void,
  ): void {
    for (const kind of kinds) {
      for (let left = times ?? this.random.between(1, 3); left > 0; left--) {
        this.schedule.after(at(), () => inject(kind));
      }
    }
  }
}
