/**
 * How many messages were discarded because there was no room, by subject. Subjects come from outside, so that not any
 * number of them is told apart.
 */
export class Discards {
  #sum = 0;
  #others = 0;
  readonly #counts = new Map<string, number>();

  readonly #maxSubjects: number;

  constructor(maxSubjects: number) {
    this.#maxSubjects = maxSubjects;
  }

  /** Exact, whatever the number of subjects. */
  get total(): number {
    return this.#sum;
  }

  /** By subject, for the first `maxSubjects` of them. */
  get bySubject(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  /** Of all subjects beyond these. */
  get other(): number {
    return this.#others;
  }

  add(subject: string): void {
    this.#sum += 1;
    const count = this.#counts.get(subject);
    if (count !== undefined) this.#counts.set(subject, count + 1);
    else if (this.#counts.size < this.#maxSubjects) this.#counts.set(subject, 1);
    else this.#others += 1;
  }
}
