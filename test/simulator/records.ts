/** A broken rule. */
export class Violation extends Error {}

/** Number of times that each fault and each transition happened. */
export class Counts {
  readonly values = new Map<string, number>();

  add(name: string, by = 1): void {
    if (by === 0) return;
    this.values.set(name, (this.values.get(name) ?? 0) + by);
  }

  merge(other: Counts): void {
    for (const [name, value] of other.values) this.add(name, value);
  }
}
