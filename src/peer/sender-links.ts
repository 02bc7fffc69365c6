/**
 * The links of a running peer, one to each listener that it sends to: opened on first use, and forgotten when nobody has
 * used them for a while and their listener has gone.
 */
import { HawserError } from "../errors/index.js";
import type { PeerContext } from "./context.js";
import type { MessageTopic } from "./outgoing.js";
import { SenderLink } from "./sender-link.js";
import type { Candidate } from "./topic-routes.js";

export class SenderLinks {
  readonly #links = new Map<string, SenderLink>();
  /** Where the numbers of forgotten links go on, within the present epoch: all that is kept of them. */
  readonly #lastNumbers = new Map<string, number>();
  readonly #opening = new Map<string, Promise<SenderLink>>();
  #closed = false;
  #mayStore = true;

  readonly #context: PeerContext;
  readonly #onProgress: () => void;

  /** @param onProgress called when one of them may have more room than before, or less */
  constructor(context: PeerContext, onProgress: () => void) {
    this.#context = context;
    this.#onProgress = onProgress;
  }

  /** How many there are. */
  get size(): number {
    return this.#links.size;
  }

  /** The link to a listener, if it is open. */
  get(listenerName: string): SenderLink | undefined {
    return this.#links.get(listenerName);
  }

  /** The link to a listener, opened on first use. @throws HawserError `store_failed`; `not_running` */
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
    if (topic.topicKey === 0) topic.topicKey = await store.topicKey(topic.topic);
    const { connectionKey, owner } = await store.connectionKey(sender, candidate.name);
    if (this.#closed) throw new HawserError("not_running", "the peer has stopped");
    const { name: listenerName } = candidate;
    const channel = { listenerName, topic: topic.topic, connectionKey, address: candidate, owner };
    const link = new SenderLink(this.#context, channel, this.#lastNumbers.get(listenerName) ?? 0, this.#onProgress);
    this.#lastNumbers.delete(listenerName);
    if (!this.#mayStore) link.setMayStore(false);
    this.#links.set(listenerName, link);
    return link;
  }

  /**
   * Forgets links that nobody needs: where nothing waits, nobody is connected, nothing was sent since the last call, and
   * `isListed` says that the directory does not have the listener. The next send opens a new one.
   */
  forgetIdle(isListed: (listenerName: string) => boolean): void {
    for (const [name, link] of this.#links) {
      if (!link.isIdle() || isListed(name)) continue;
      link.close();
      this.#links.delete(name);
      if (link.lastNumber > 0) this.#lastNumbers.set(name, link.lastNumber);
    }
  }

  /** Whether another listener among these has the link's channel: it would get everything twice. */
  isReplaced(link: SenderLink, candidates: readonly Candidate[]): boolean {
    return candidates.some(({ name }) => link.hasOwner(name) && this.#links.get(name)?.dial.isHandedOver !== true);
  }

  /** A channel was handed over, which is announced to its sender, too. */
  handedOver(connectionKey: number): void {
    for (const link of this.#links.values()) if (link.hasKey(connectionKey)) void link.dial.lookForOwner();
  }

  /** A peer has come, or has another address: perhaps one to which a channel was handed over. */
  ownerAppeared(name: string): void {
    for (const link of this.#links.values()) if (link.hasOwner(name)) void link.dial.lookForOwner();
  }

  /** The topics of all messages that wait. */
  waitingTopics(): Set<MessageTopic> {
    return new Set([...this.#links.values()].flatMap((link) => [...new Set(link.waitingTopics())]));
  }

  /** Looks up again the keys of the channels. @throws HawserError `store_failed` */
  async rekey(): Promise<void> {
    const { store, sender } = this.#context;
    const rekey = async (link: SenderLink): Promise<void> =>
      link.dial.rekey((await store.connectionKey(sender, link.listenerName)).connectionKey);
    await Promise.all([...this.#links.values()].map(rekey));
  }

  /** The lease is, or is not, surely held. */
  setMayStore(mayStore: boolean): void {
    this.#mayStore = mayStore;
    for (const link of this.#links.values()) link.setMayStore(mayStore);
  }

  /** The name was taken anew after the database changed servers. */
  rebase(epoch: number): void {
    this.#lastNumbers.clear();
    for (const link of this.#links.values()) link.rebase(epoch);
  }

  /** Stores what is unconfirmed. Resolves when nothing is pending. */
  async stop(): Promise<void> {
    await Promise.all([...this.#opening.values()].map((opening) => opening.catch(() => undefined)));
    await Promise.all([...this.#links.values()].map((link) => link.stop()));
  }

  /** The name is lost: what is pending is rejected. */
  fence(): void {
    for (const link of this.#links.values()) link.fence();
  }

  /** Ends all links; what is still pending is rejected. */
  close(): void {
    this.#closed = true;
    for (const link of this.#links.values()) link.close();
  }
}
