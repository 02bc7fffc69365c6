/**
 * A limit for what is done at once, of which each role has a share ({@link shareOf}). Within a role, who comes first is first.
 */

import { shareOf } from "../outbox/index.js";
import { Fifo } from "../runtime/index.js";

interface RoleWork {
  running: number;
  readonly waiting: Fifo<() => void>;
}

export class RoleGate {
  readonly #total: number;
  readonly #roles = new Map<string, RoleWork>();

  /** @param alone how much a role may do at once that is the only one */
  constructor(alone: number) {
    this.#total = alone * 2;
  }

  /** Does the work, when the share of the role has room. Settles as the work does. */
  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const role = this.#roles.get(name) ?? { running: 0, waiting: new Fifo() };
    this.#roles.set(name, role);
    if (role.running >= this.#share) await new Promise<void>((resolve) => role.waiting.push(resolve));
    else role.running += 1;
    try {
      return await work();
    } finally {
      role.running -= 1;
      // Its share may be smaller than it was, or greater.
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
