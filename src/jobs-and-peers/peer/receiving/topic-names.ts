/** Names of topics by their ids, which frames and rows of channels have. */
import type { PeerContext } from "../core/context.js";

export class TopicNames {
  readonly #names = new Map<number, string>();
  /** Running queries, which all messages of a topic share. */
  readonly #lookUps = new Map<number, Promise<string | undefined>>();

  readonly #store: PeerContext["store"];

  constructor(store: PeerContext["store"]) {
    this.#store = store;
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

  /** Forgets all topics, because their ids differ between databases. */
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
