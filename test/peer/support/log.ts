/**
 * Log of events, in order, which tests await without sleeping.
 */

/** For what hangs: shorter than the limit of a test. */
const deadlineMs = 150_000;

/** A list that tells when something was added to it. */
export class Log<T> {
  readonly all: T[] = [];
  readonly #checks = new Set<() => void>();

  push(entry: T): void {
    this.all.push(entry);
    for (const check of [...this.#checks]) check();
  }

  /** Resolves once there are that many entries. */
  async length(count: number): Promise<void> {
    await this.until(`there are ${count} entries`, (all) => all.length >= count);
  }

  /** Resolves with the first entry, past or future, that `wanted` accepts, from position `from` on. */
  async find<Found extends T>(wanted: (entry: T) => entry is Found, from?: number): Promise<Found>;
  async find(wanted: (entry: T) => boolean, from?: number): Promise<T>;
  async find(wanted: (entry: T) => boolean, from = 0): Promise<T> {
    let found: T | undefined;
    let looked = from;
    await this.until(`an entry passes ${wanted}`, (all) => {
      for (; found === undefined && looked < all.length; looked++) {
        if (wanted(all[looked] as T)) found = all[looked];
      }
      return found !== undefined;
    });
    return found as T;
  }

  /** Resolves once `holds` does, asked after every entry. Rejects, showing the last entries, when it takes too long. */
  async until(what: string, holds: (all: readonly T[]) => boolean, limitMs = deadlineMs): Promise<void> {
    if (holds(this.all)) return;
    await new Promise<void>((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#checks.delete(check);
      };
      const check = (): void => {
        if (!holds(this.all)) return;
        end();
        resolve();
      };
      const timer = setTimeout(() => {
        end();
        const last = this.all.slice(-5).map((entry) => JSON.stringify(entry));
        reject(
          new Error(
            `Within ${limitMs} ms it did not happen that ${what}. ${this.all.length} entries, the last: ${last}`,
          ),
        );
      }, limitMs);
      this.#checks.add(check);
    });
  }
}
