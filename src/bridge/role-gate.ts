/**
 * Limits how many operations run concurrently, with a share of the limit for each role ({@link shareOf}). Operations of
 * a role start in the order of their calls.
 */

import { Fifo, shareOf } from "../runtime/index.js";

interface RoleQueue {
  running: number;
  readonly waiting: Fifo<() => void>;
}

export class RoleGate {
  readonly #total: number;
  readonly #roles = new Map<string, RoleQueue>();

  /** @param alone limit for a role while no other role has operations */
  constructor(alone: number) {
    this.#total = alone * 2;
  }

  /** Runs the operation when its role is below its share. Resolves or rejects as the operation does. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const role = this.#roles.get(name) ?? { running: 0, waiting: new Fifo() };
    this.#roles.set(name, role);
    if (role.running >= this.#share) await new Promise<void>((resolve) => role.waiting.push(resolve));
    else role.running += 1;
    try {
      return await work();
    } finally {
      role.running -= 1;
      // The share depends on the number of roles, which may have changed.
      while (role.waiting.length > 0 && role.running < this.#share) {
        role.running += 1;
        role.waiting.shift()!();
      }
      if (role.running === 0) this.#roles.delete(name);
    }
  }

  get #share(): number {
    return shareOf(this.#total, this.#roles.size);
  }
}
