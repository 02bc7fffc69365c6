import type { PeerContext } from "./context.js";
import { checkTopic } from "./options.js";
import type { SenderLinks } from "./sender-links.js";
import { type Candidate, TopicRoutes } from "./topic-routes.js";

/** What a running peer has read of the directory: the topics that it sends to, and those that it serves with others. */
export class TopicDirectory {
  readonly #topics = new Map<string, TopicRoutes>();
  #closed = false;
  /** What is being read, and written of it. */
  readonly #reading = new Set<Promise<void>>();

  readonly #context: PeerContext;
  readonly #links: SenderLinks;
  readonly #onRead: () => void;

  /** @param onRead called when a topic was read again */
  constructor(context: PeerContext, links: SenderLinks, onRead: () => void) {
    this.#onRead = onRead;
    this.#context = context;
    this.#links = links;
  }

  get(topic: string): TopicRoutes | undefined {
    return this.#topics.get(topic);
  }

  /** @throws HawserError `invalid_argument` unless it may be a topic */
  add(topic: string): TopicRoutes {
    checkTopic(topic);
    const routes: TopicRoutes = new TopicRoutes(topic, () => this.#track(this.#read(routes)));
    this.#topics.set(topic, routes);
    return routes;
  }

  all(): Iterable<TopicRoutes> {
    return this.#topics.values();
  }

  /** From now on tells who else serves a topic that this peer serves; routes are made only when it sends to it. */
  watch(topic: string): void {
    if (this.#topics.has(topic)) return;
    const routes = this.add(topic);
    routes.isOnlyWatched = true;
    void this.reload(routes);
  }

  unwatch(topic: string): void {
    if (this.#topics.get(topic)?.isOnlyWatched === true) this.#topics.delete(topic);
  }

  /** Reads the topic's listeners again. @returns whether there is one in the directory */
  async refresh(topic: string): Promise<boolean> {
    const routes = this.#topics.get(topic) ?? this.add(topic);
    routes.isOnlyWatched = false;
    await routes.load();
    if (routes.listed.length > 0) return true;
    if (routes.isEmpty) this.#topics.delete(topic);
    return false;
  }

  /** Topics that nobody serves are kept for the status events, but no more of them than `limit`. */
  forgetUnserved(limit: number): void {
    if (this.#topics.size <= limit) return;
    for (const [topic, routes] of this.#topics) {
      if (routes.waiting === 0 && routes.isEmpty) this.#topics.delete(topic);
    }
  }

  /** Whether the directory has the listener under a topic that is sent to. */
  isListed(name: string): boolean {
    for (const { listed, isOnlyWatched } of this.#topics.values()) {
      if (!isOnlyWatched && listed.some((listener) => listener.name === name)) return true;
    }
    return false;
  }

  /** Reads nothing any more. Resolves when no route is being written, which would stay behind. Does not reject. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#reading);
  }

  #track(reading: Promise<void>): Promise<void> {
    this.#reading.add(reading);
    const done = (): void => void this.#reading.delete(reading);
    reading.then(done, done);
    return reading;
  }

  /** Reads a topic for which no caller waits. */
  async reload(routes: TopicRoutes): Promise<void> {
    try {
      if (!this.#closed) await routes.load();
    } catch (error) {
      this.#context.logger.debug({ err: error, topic: routes.topic }, "could not read a topic's listeners; polling on");
    }
  }

  async reloadAll(wanted: (routes: TopicRoutes) => boolean = () => true): Promise<void> {
    // All at the same time, because the store reads them together.
    await Promise.all([...this.#topics.values()].filter(wanted).map((routes) => this.reload(routes)));
  }

  /** Reads a topic's key and listeners, remembers those in the directory as met, and opens links to them. */
  async #read(routes: TopicRoutes): Promise<void> {
    const { store, sender } = this.#context;
    const { topic, isOnlyWatched } = routes;
    const { listeners, routes: met } = await store.listenersAndRoutes(sender, topic);
    const known = isOnlyWatched ? [] : met;
    const before = routes.wasRead ? routes.listed : undefined;
    routes.wasRead = true;
    routes.update(listeners, known);
    if (before !== undefined) this.#tellChanges(routes, before);
    if (routes.isEmpty || isOnlyWatched) {
      routes.ready = false;
      return;
    }
    if (routes.topicKey === 0) routes.topicKey = await store.topicKey(topic);
    const addresses = new Map(known.map(({ name, addr }) => [name, addr]));
    for (const listener of listeners) {
      if (this.#closed) return;
      if (addresses.get(listener.name) !== listener.addr) await store.rememberRoute(sender, topic, listener);
    }
    for (const candidate of routes.listed) {
      const link = this.#links.get(candidate.name);
      if (link === undefined) await this.#links.to(candidate, routes);
      else link.dial.relocate(candidate);
    }
    // One that is away gets its link with the first send to it: most are never sent to again.
    for (const candidate of routes.away) {
      // That this topic has no address for the listener says nothing of its other topics.
      if (!this.isListed(candidate.name)) this.#links.get(candidate.name)?.dial.relocate(candidate);
    }
    routes.ready = true;
    this.#onRead();
  }

  /** Tells who serves a topic, and who does not any more, as against `before`. */
  #tellChanges({ topic, listed, isEmpty, isOnlyWatched }: TopicRoutes, before: readonly Candidate[]): void {
    const { status } = this.#context;
    const isIn = (list: readonly Candidate[], peer: string): boolean => list.some(({ name }) => name === peer);
    for (const { name: peer } of listed) {
      if (isIn(before, peer)) continue;
      status.tell({ kind: "peer_subscribed", topic, peer, message: `"${peer}" serves "${topic}"` });
    }
    for (const { name: peer } of before) {
      if (isIn(listed, peer)) continue;
      status.tell({ kind: "peer_unsubscribed", topic, peer, message: `"${peer}" does not serve "${topic}" any more` });
      if (!isEmpty || isOnlyWatched) continue;
      status.tell({ kind: "sender_route_lost", topic, peer, message: `nobody serves "${topic}" any more` });
    }
  }
}
