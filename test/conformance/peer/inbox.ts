/** Things that come, for one who takes them one after another. After `end` what is left can be taken, then undefined. */
export class Inbox<T> {
  readonly #come: T[] = [];
  #waiting: ((thing: T | undefined) => void) | undefined;
  #ended = false;

  push(thing: T): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#come.push(thing);
    else waiting(thing);
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.(undefined);
    this.#waiting = undefined;
  }

  async next(): Promise<T | undefined> {
    if (this.#come.length > 0) return this.#come.shift();
    if (this.#ended) return undefined;
    return await new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }
}
