import type { AbsentListener } from "../store/index.js";

/** Since when listeners have been away without a break, as far as regular looks can tell. Pure: times come from outside. */
export class Absences {
  readonly #since = new Map<string, { readonly epoch: number | null; readonly at: number }>();
  #lookedAt = Number.NEGATIVE_INFINITY;

  readonly #afterMs: number;
  readonly #maxGapMs: number;

  /**
   * @param afterMs how long a listener must be away
   * @param maxGapMs looks that are further apart than this say nothing of what was between them
   */
  constructor(afterMs: number, maxGapMs: number) {
    this.#afterMs = afterMs;
    this.#maxGapMs = maxGapMs;
  }

  /**
   * Takes what a look found.
   *
   * @param began when the look began, in ms
   * @param ended when it was over
   * @returns the names of those that have been away long enough
   */
  looked(absent: readonly AbsentListener[], began: number, ended: number): string[] {
    if (began - this.#lookedAt > this.#maxGapMs) this.#since.clear();
    this.#lookedAt = ended;
    const before = new Map(this.#since);
    this.#since.clear();
    for (const { name, epoch } of absent) {
      const known = before.get(name);
      // Another epoch: it was there in between.
      this.#since.set(name, known?.epoch === epoch ? known : { epoch, at: ended });
    }
    return absent
      .map(({ name }) => name)
      .filter((name) => began - (this.#since.get(name)?.at ?? began) >= this.#afterMs);
  }

  /** What was seen before says nothing any more. */
  forget(): void {
    this.#since.clear();
    this.#lookedAt = Number.NEGATIVE_INFINITY;
  }
}
