/** Names of topics by their ids, of channels and of the queue. */
import type { PeerContext } from "../core/context.js";

export class TopicNames {
  readonly #names = new Map<number, string>();
  /** Topics of the queue. */
  readonly #ids = new Map<string, number>();
  readonly #ofQueue = new Map<number, string>();
  /** Running queries, which all messages of a topic share. */
  readonly #lookUps = new Map<number, Promise<string | undefined>>();

  readonly #store: PeerContext["store"];

  constructor(store: PeerContext["store"]) {
    this.#store = store;
  }

  /** Id of a topic of the queue, whose rows have names: below zero, and valid in this process alone. */
  idOf(name: string): number {
    let id = this.#ids.get(name);
    if (id === undefined) {
      id = -1 - this.#ids.size;
      this.#ids.set(name, id);
      this.#ofQueue.set(id, name);
    }
    return id;
  }

  /** Cached name of a topic. */
  known(topicId: number): string | undefined {
    return topicId < 0 ? this.#ofQueue.get(topicId) : this.#names.get(topicId);
  }

  /**
   * Name of a topic; undefined if the id is not in the catalog. @throws HawserError `store_failed` (as a rejection)
   */
  of(topicId: number): string | Promise<string | undefined> {
    const known = this.known(topicId);
    if (known !== undefined) return known;
    let lookUp = this.#lookUps.get(topicId);
    if (lookUp === undefined) {
      lookUp = this.#lookUp(topicId).finally(() => this.#lookUps.delete(topicId));
      this.#lookUps.set(topicId, lookUp);
    }
    return lookUp;
  }

  /** Clears the cache, because keys differ between databases. */
  clear(): void {
    this.#names.clear();
    this.#lookUps.clear();
  }

  async #lookUp(topicId: number): Promise<string | undefined> {
    const name = await this.#store.topicOfId(topicId);
    if (name !== undefined) this.#names.set(topicId, name);
    return name;
  }
}
