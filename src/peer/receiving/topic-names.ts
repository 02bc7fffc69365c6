/** Names of topics by their ids, of channels and of the queue. */
import type { PeerContext } from "../core/context.js";

export class TopicNames {
  readonly #names = new Map<number, string>();
  /** Ids of topics of the queue. */
  readonly #ids = new Map<string, number>();
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
      this.#names.set(id, name);
    }
    return id;
  }

  /** Cached name of a topic. */
  known(topicId: number): string | undefined {
    return this.#names.get(topicId);
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

  /** Forgets the topics of channels, because their ids differ between databases. */
  clear(): void {
    for (const id of this.#names.keys()) if (id >= 0) this.#names.delete(id);
    this.#lookUps.clear();
  }

  async #lookUp(topicId: number): Promise<string | undefined> {
    const name = await this.#store.topicOfId(topicId);
    if (name !== undefined) this.#names.set(topicId, name);
    return name;
  }
}
