/**
 * Links of a running peer, one per listener that it sends to. A link is opened on first use, and removed after a while
 * without use if its listener has left the directory.
 */
import { HawserError } from "../../../foundation/errors/index.js";
import type { PeerContext } from "../core/context.js";
import type { MessageTopic } from "./outgoing.js";
import { SenderLink } from "./sender-link.js";
import type { Candidate } from "./topic-routes.js";

export class SenderLinks {
  readonly #links = new Map<string, SenderLink>();
  /** Last used numbers of removed links in the current epoch, where a new link continues. */
  readonly #lastNumbers = new Map<string, number>();
  readonly #opening = new Map<string, Promise<SenderLink>>();
  #closed = false;
  #mayStore = true;

  readonly #context: PeerContext;

  constructor(context: PeerContext) {
    this.#context = context;
  }

  /** Number of open links. */
  get size(): number {
    return this.#links.size;
  }

  /** Number of links with a connection. */
  get connected(): number {
    let connected = 0;
    for (const link of this.#links.values()) if (link.isConnected) connected += 1;
    return connected;
  }

  /** Link to a listener if it is open. */
  get(listenerName: string): SenderLink | undefined {
    return this.#links.get(listenerName);
  }

  /** Link to a listener, opened on first use. @throws HawserError `store_failed`; `not_running` */
  to(candidate: Candidate, topic: MessageTopic): Promise<SenderLink> | SenderLink {
    const known = this.#links.get(candidate.name);
    if (known !== undefined) return known;
    let opening = this.#opening.get(candidate.name);
    if (opening === undefined) {
      opening = this.#open(candidate, topic).finally(() => this.#opening.delete(candidate.name));
      this.#opening.set(candidate.name, opening);
    }
    return opening;
  }

  async #open(candidate: Candidate, topic: MessageTopic): Promise<SenderLink> {
    const { store, sender } = this.#context;
    if (topic.topicId === 0) topic.topicId = await store.idOfTopic(topic.topic);
    const channelId = await store.openChannel(sender, candidate.name);
    if (this.#closed) throw new HawserError("not_running", "the peer has stopped");
    const { name: listenerName } = candidate;
    const channel = { listenerName, topic: topic.topic, channelId, address: candidate };
    const link = new SenderLink(this.#context, channel, this.#lastNumbers.get(listenerName) ?? 0);
    this.#lastNumbers.delete(listenerName);
    if (!this.#mayStore) link.setMayStore(false);
    this.#links.set(listenerName, link);
    return link;
  }

  /**
   * Closes unused links: no waiting message, no connection, no send since the last call, and `isListed` returns false
   * for their listener. The next send opens a new link.
   */
  forgetIdle(isListed: (listenerName: string) => boolean): void {
    for (const [name, link] of this.#links) {
      if (!link.isIdle() || isListed(name)) continue;
      link.close();
      this.#links.delete(name);
      if (link.lastNumber > 0) this.#lastNumbers.set(name, link.lastNumber);
    }
  }

  /** Topics of all waiting messages. */
  waitingTopics(): Set<MessageTopic> {
    return new Set([...this.#links.values()].flatMap((link) => [...new Set(link.waitingTopics())]));
  }

  /** Looks up the ids of the channels again. @throws HawserError `store_failed` */
  async rekey(): Promise<void> {
    const { store, sender } = this.#context;
    const rekey = async (link: SenderLink): Promise<void> =>
      link.dial.rekey(await store.openChannel(sender, link.listenerName));
    await Promise.all([...this.#links.values()].map(rekey));
  }

  /** Suspends or resumes storing messages, with the lease. */
  setMayStore(mayStore: boolean): void {
    this.#mayStore = mayStore;
    for (const link of this.#links.values()) link.setMayStore(mayStore);
  }

  /** Restarts unconfirmed messages in a new epoch, after a renewal of the lease on another database server. */
  restartNumbering(epoch: number): void {
    this.#lastNumbers.clear();
    for (const link of this.#links.values()) link.restartNumbering(epoch);
  }

  /** Stores unconfirmed messages. Resolves when no send is pending. */
  async stop(): Promise<void> {
    await Promise.all([...this.#opening.values()].map((opening) => opening.catch(() => undefined)));
    await Promise.all([...this.#links.values()].map((link) => link.stop()));
  }

  /** Rejects all pending sends, because the name is lost. */
  fence(): void {
    for (const link of this.#links.values()) link.fence();
  }

  /** Closes all links, and rejects all pending sends. */
  close(): void {
    this.#closed = true;
    for (const link of this.#links.values()) link.close();
  }
}
