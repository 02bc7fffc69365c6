/**
 * The sending side of a running peer: topics, their listeners, and a link to each listener.
 */
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import type { DeliveryMode, Headers } from "../channel/index.js";
import { type HawserError, PeerError } from "../errors/index.js";
import type { CatalogChange } from "../store/index.js";
import type { PeerContext } from "./context.js";
import type { Outgoing } from "./outgoing.js";
import { asHawserError, SenderLink } from "./sender-link.js";
import { type Candidate, TopicRoutes } from "./topic-routes.js";

/** A message whose arguments are checked. */
export interface CheckedMessage {
  readonly delivery: DeliveryMode;
  readonly payload: Uint8Array;
  readonly headers: Headers | undefined;
}

export class Outbox {
  private readonly links = new Map<string, SenderLink>();
  private readonly opening = new Map<string, Promise<SenderLink>>();
  private readonly topics = new Map<string, TopicRoutes>();
  private poll: NodeJS.Timeout | undefined;
  private generation: number;
  private readonly unlisten: (() => void)[];
  private closed = false;
  private mayStore = true;

  constructor(private readonly context: PeerContext) {
    this.generation = context.store.generation;
    this.unlisten = [
      context.store.on("catalog", (change) => this.catalogChanged(change)),
      context.store.on("session", (state) => state === "up" && void this.sessionUp()),
    ];
    this.pollLater();
  }

  /**
   * Sends to one listener of the topic.
   *
   * @throws PeerError (as a rejection) `no_address`, `invalid_argument`, `busy`, …; StoreError `store_failed`
   */
  sendTo(topic: string, message: CheckedMessage): Outgoing | Promise<Outgoing> {
    const routes = this.topics.get(topic);
    if (routes?.ready === true && routes.waiting === 0) {
      const candidate = routes.choose(this.links);
      const link = candidate && (candidate.link ??= this.links.get(candidate.name));
      if (candidate !== undefined && link !== undefined) return this.hand(link, routes, message);
    }
    return this.inOrder(routes ?? this.routesOf(topic), async (known) => {
      const candidate = known.choose(this.links);
      if (candidate === undefined) throw noAddress(topic);
      return this.hand(await this.linkTo(candidate, known), known, message);
    });
  }

  /** Whether the topic was sent to before, and so is known to be a good one. */
  knows(topic: string): boolean {
    return this.topics.has(topic);
  }

  /** Sends to every listener of the topic: the tickets, or the errors, in the order of the phone book. */
  async sendAll(topic: string, message: CheckedMessage): Promise<{ peer: string; ticket: Outgoing | HawserError }[]> {
    return await this.inOrder(this.topics.get(topic) ?? this.routesOf(topic), async (known) => {
      if (known.isEmpty) throw noAddress(topic);
      const sent: { peer: string; ticket: Outgoing | HawserError }[] = [];
      for (const candidate of known.all) {
        try {
          const link = await this.linkTo(candidate, known);
          sent.push({ peer: candidate.name, ticket: this.hand(link, known, message) });
        } catch (error) {
          sent.push({ peer: candidate.name, ticket: asHawserError(error) });
        }
      }
      return sent;
    });
  }

  /** Sends to a peer by its name, under one of its topics: a reply. */
  async sendToPeer(name: string, topic: string, message: CheckedMessage): Promise<Outgoing> {
    return await this.inOrder(this.topics.get(topic) ?? this.routesOf(topic), async (known) => {
      const candidate = known.all.find((one) => one.name === name) ?? {
        name,
        addr: undefined,
        maxMessageBytes: protocolConstants.maxStoredMessageBytes,
        durable: false,
      };
      const link = await this.linkTo(candidate, known);
      // A topic that nobody serves any more has no key yet, although its peer may have a link.
      if (known.topicKey === 0) known.topicKey = await this.context.store.topicKey(topic);
      return this.hand(link, known, message);
    });
  }

  /** Reads the topic's listeners again. @returns whether there is one in the phone book */
  async refresh(topic: string): Promise<boolean> {
    const routes = this.topics.get(topic) ?? this.routesOf(topic);
    await this.load(routes);
    if (routes.listed.length > 0) return true;
    if (routes.isEmpty) this.topics.delete(topic);
    return false;
  }

  /** The lease is, or is not, surely held. */
  setMayStore(mayStore: boolean): void {
    this.mayStore = mayStore;
    for (const link of this.links.values()) link.setMayStore(mayStore);
  }

  /** The name was taken anew after the database changed servers. */
  rebase(epoch: number): void {
    for (const link of this.links.values()) link.rebase(epoch);
  }

  /** Stores what is unconfirmed. Resolves when nothing is pending. */
  async stop(): Promise<void> {
    clearTimeout(this.poll);
    await Promise.all([...this.opening.values()].map((opening) => opening.catch(() => undefined)));
    await Promise.all([...this.links.values()].map((link) => link.stop()));
  }

  /** The name is lost: what is pending is rejected. */
  fence(): void {
    for (const link of this.links.values()) link.fence();
  }

  /** Ends all links; what is still pending is rejected. */
  close(): void {
    this.closed = true;
    clearTimeout(this.poll);
    for (const stop of this.unlisten) stop();
    for (const link of this.links.values()) link.close();
  }

  private hand(link: SenderLink, routes: TopicRoutes, { delivery, payload, headers }: CheckedMessage): Outgoing {
    const limit =
      delivery === "at-least-once"
        ? Math.min(link.maxMessageBytes, protocolConstants.maxStoredMessageBytes)
        : link.maxMessageBytes;
    if (payload.length > limit) {
      throw new PeerError(
        "invalid_argument",
        `the payload has ${payload.length} bytes; "${link.listenerName}" takes at most ${limit} (${delivery})`,
      );
    }
    return link.send(delivery, routes.topicKey, payload, headers, routes.topic);
  }

  /** Runs a send when the topic is known, behind the sends that wait for that already. */
  private async inOrder<T>(routes: TopicRoutes, send: (routes: TopicRoutes) => Promise<T>): Promise<T> {
    const { maxSendQueueMessages } = this.context.settings;
    if (routes.waiting >= maxSendQueueMessages) {
      throw new PeerError("busy", `${routes.waiting} sends to "${routes.topic}" wait for the phone book already`);
    }
    routes.waiting += 1;
    // One reading for all that wait for it.
    const known = routes.ready && !routes.isEmpty ? undefined : this.load(routes);
    const mine = Promise.all([routes.tail, known]).then(async () => {
      if (this.closed) throw new PeerError("not_running", "the peer has stopped");
      return await send(routes);
    });
    routes.tail = mine.catch(() => undefined);
    try {
      return await mine;
    } finally {
      routes.waiting -= 1;
      this.forgetTopics(maxSendQueueMessages);
    }
  }

  /** Topics that nobody serves are kept for the status events, but no more of them than messages may wait. */
  private forgetTopics(limit: number): void {
    if (this.topics.size <= limit) return;
    for (const [topic, routes] of this.topics) {
      if (routes.waiting === 0 && routes.isEmpty) this.topics.delete(topic);
    }
  }

  /**
   * Reads what the catalog has of a topic, one reading at a time, so that none overtakes another: whoever waited for one
   * finds its routes remembered. All who ask before it begins share it.
   */
  private load(routes: TopicRoutes): Promise<void> {
    routes.nextReading ??= routes.reading.then(() => {
      routes.nextReading = undefined;
      return this.read(routes);
    });
    const next = routes.nextReading;
    routes.reading = next.catch(() => undefined);
    return next;
  }

  private routesOf(topic: string): TopicRoutes {
    const routes = new TopicRoutes(topic);
    this.topics.set(topic, routes);
    return routes;
  }

  /** Reads a topic's key and listeners, remembers those in the phone book as met, and opens links to them. */
  private async read(routes: TopicRoutes): Promise<void> {
    const { store, sender } = this.context;
    const { topic } = routes;
    const [listeners, known] = await Promise.all([store.listenersOf(topic), store.routesOf(sender, topic)]);
    const before = routes.wasRead ? routes.listed : undefined;
    routes.wasRead = true;
    routes.update(listeners, known);
    if (before !== undefined) this.tellChanges(routes, before);
    if (routes.isEmpty) {
      routes.ready = false;
      return;
    }
    if (routes.topicKey === 0) routes.topicKey = await store.topicKey(topic);
    const addresses = new Map(known.map(({ name, addr }) => [name, addr]));
    for (const listener of listeners) {
      if (addresses.get(listener.name) !== listener.addr) await store.rememberRoute(sender, topic, listener);
    }
    for (const candidate of routes.all) {
      const link = this.links.get(candidate.name);
      if (link === undefined) await this.linkTo(candidate, routes);
      // That this topic has no address for the listener says nothing of its other topics.
      else if (candidate.addr !== undefined || !this.isListed(candidate.name)) link.relocate(candidate);
    }
    routes.ready = true;
  }

  /** The link to a listener, opened on first use. */
  private linkTo(candidate: Candidate, routes: TopicRoutes): Promise<SenderLink> | SenderLink {
    const known = this.links.get(candidate.name);
    if (known !== undefined) return known;
    let opening = this.opening.get(candidate.name);
    if (opening === undefined) {
      opening = this.openLink(candidate, routes).finally(() => this.opening.delete(candidate.name));
      this.opening.set(candidate.name, opening);
    }
    return opening;
  }

  private async openLink(candidate: Candidate, routes: TopicRoutes): Promise<SenderLink> {
    const { store, sender } = this.context;
    if (routes.topicKey === 0) routes.topicKey = await store.topicKey(routes.topic);
    const { connectionKey } = await store.connectionKey(sender, candidate.name);
    if (this.closed) throw new PeerError("not_running", "the peer has stopped");
    const link = new SenderLink(this.context, candidate.name, routes.topic, connectionKey, candidate);
    if (!this.mayStore) link.setMayStore(false);
    this.links.set(candidate.name, link);
    return link;
  }

  private isListed(name: string): boolean {
    for (const { listed } of this.topics.values()) if (listed.some((listener) => listener.name === name)) return true;
    return false;
  }

  private catalogChanged({ topic, clientName, operation }: CatalogChange): void {
    const routes = this.topics.get(topic);
    if (routes === undefined) return;
    void this.reload(routes).then(() => operation !== "delete" && this.links.get(clientName)?.listenerAppeared());
  }

  /** Tells who serves a topic, and who does not any more, as against `before`. */
  private tellChanges({ topic, listed, isEmpty }: TopicRoutes, before: readonly Candidate[]): void {
    const { status } = this.context;
    const isIn = (list: readonly Candidate[], peer: string): boolean => list.some(({ name }) => name === peer);
    for (const { name: peer } of listed) {
      if (isIn(before, peer)) continue;
      status.tell({ kind: "peer_subscribed", topic, peer, message: `"${peer}" serves "${topic}"` });
    }
    for (const { name: peer } of before) {
      if (isIn(listed, peer)) continue;
      status.tell({ kind: "peer_unsubscribed", topic, peer, message: `"${peer}" does not serve "${topic}" any more` });
      if (!isEmpty) continue;
      status.tell({ kind: "sender_route_lost", topic, peer, message: `nobody serves "${topic}" any more` });
    }
  }

  private async reload(routes: TopicRoutes): Promise<void> {
    try {
      if (!this.closed) await this.load(routes);
    } catch (error) {
      this.context.logger.debug({ err: error, topic: routes.topic }, "could not read a topic's listeners; polling on");
    }
  }

  /** Looks up again the keys of topics and channels. @throws StoreError `store_failed` */
  async rekey(): Promise<void> {
    const { store, sender } = this.context;
    for (const routes of this.topics.values()) {
      if (routes.topicKey !== 0) routes.topicKey = await store.topicKey(routes.topic);
    }
    for (const link of this.links.values()) {
      link.rekey((await store.connectionKey(sender, link.listenerName)).connectionKey);
    }
  }

  /** A new database session: notifications were missed, and keys may be another database's. */
  private async sessionUp(): Promise<void> {
    const { store, logger } = this.context;
    try {
      if (store.generation !== this.generation) {
        this.generation = store.generation;
        await this.rekey();
      }
    } catch (error) {
      logger.debug({ err: error }, "could not look up keys after a new session; polling on");
    }
    for (const routes of this.topics.values()) await this.reload(routes);
  }

  /** Notifications can be missed: the slow poll finds what they told. */
  private pollLater(): void {
    this.poll = setTimeout(async () => {
      for (const routes of this.topics.values()) if (routes.ready) await this.reload(routes);
      if (!this.closed) this.pollLater();
    }, storeConstants.pollMs);
    this.poll.unref();
  }
}

function noAddress(topic: string): PeerError {
  return new PeerError(
    "no_address",
    `nobody serves the topic "${topic}", and nobody did when this peer sent to it before`,
  );
}
