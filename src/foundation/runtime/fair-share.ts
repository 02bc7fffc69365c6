/** Fair use of a common resource: parties take turns, and each may have a share of it. */

/**
 * Share of a common resource: memory, publishes in flight, requests. Each of `users` users may have total / (users + 1).
 * A single user has half of the total, and a new user always finds free capacity: k users together
 * use at most total × (1/2 + 1/3 + … + 1/(k + 1)).
 */
export function shareOf(total: number, users: number): number {
  return Math.max(1, Math.floor(total / (users + 1)));
}

/** Parties that may have something to start, in the order of their turns. A party can be a round robin of its own. */
export class RoundRobin<Party> {
  readonly #parties = new Set<Party>();

  get size(): number {
    return this.#parties.size;
  }

  /** Adds a party behind all others. A party that is present keeps its place. */
  add(party: Party): void {
    this.#parties.add(party);
  }

  /** Removes a party. @returns false if it was not present */
  delete(party: Party): boolean {
    return this.#parties.delete(party);
  }

  /**
   * Asks the parties in their order, until one starts something, and moves that one behind the others.
   *
   * @param start returns undefined if the party can start nothing now. It may remove the party
   */
  next<T>(start: (party: Party) => T | undefined): T | undefined {
    for (const party of this.#parties) {
      const started = start(party);
      if (started === undefined) continue;
      if (this.#parties.delete(party)) this.#parties.add(party);
      return started;
    }
    return undefined;
  }
}
