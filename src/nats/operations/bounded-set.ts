/**
 * A set that forgets what was added first, once it is full.
 */

/** For what may be forgotten: a memory of what was seen lately. */
export class BoundedSet {
  readonly #items = new Set<string>();

  constructor(readonly maxItems: number) {}

  has(item: string): boolean {
    return this.#items.has(item);
  }

  add(item: string): void {
    this.#items.add(item);
    if (this.#items.size <= this.maxItems) return;
    for (const oldest of this.#items) {
      this.#items.delete(oldest);
      return;
    }
  }

  delete(item: string): void {
    this.#items.delete(item);
  }
}
