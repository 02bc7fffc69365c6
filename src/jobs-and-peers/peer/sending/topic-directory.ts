import { checkTopic } from "../../queue/enqueue/index.js";
import type { PeerContext } from "../core/context.js";
import type { SenderLinks } from "./sender-links.js";
import { type Candidate, TopicRoutes } from "./topic-routes.js";

/**
 * Cached part of the directory: the topics that a running peer sends to, and those that it serves together with others.
 */
export class TopicDirectory {
  readonly #topics = new Map<string, TopicRoutes>();
  #closed = false;

  readonly #context: PeerContext;
  readonly #links: SenderLinks;

  constructor(context: PeerContext, links: SenderLinks) {
    this.#context = context;
    this.#links = links;
  }

  get(topic: string): TopicRoutes | undefined {
    return this.#topics.get(topic);
  }

  /** Adds a topic to send to. @throws HawserError `invalid_argument` for an invalid topic */
  add(topic: string): TopicRoutes {
    checkTopic(topic);
    const routes: TopicRoutes = new TopicRoutes(topic, this.#context, this.#links, () => this.#read(routes));
    this.#topics.set(topic, routes);
    return routes;
  }

  all(): Iterable<TopicRoutes> {
    return this.#topics.values();
  }

  /**
   * Reports the other listeners of a topic that this peer serves. Routes are created only when the peer sends to the
   * topic.
   */
  watch(topic: string): void {
    if (this.#topics.has(topic)) return;
    const routes = this.add(topic);
    routes.isOnlyWatched = true;
    void routes.reload();
  }

  unwatch(topic: string): void {
    if (this.#topics.get(topic)?.isOnlyWatched === true) this.#topics.delete(topic);
  }

  /** Reads the listeners of a topic again. @returns true if the directory has one */
  async refresh(topic: string): Promise<boolean> {
    const routes = this.#topics.get(topic) ?? this.add(topic);
    routes.isOnlyWatched = false;
    await routes.load();
    if (routes.listed.length > 0) return true;
    if (routes.isEmpty) this.#topics.delete(topic);
    return false;
  }

  /** Removes topics without listeners beyond `limit`; the others are kept for status events. */
  forgetUnserved(limit: number): void {
    if (this.#topics.size <= limit) return;
    for (const [topic, routes] of this.#topics) {
      if (routes.waiting === 0 && routes.isEmpty) this.#topics.delete(topic);
    }
  }

  /** True if the directory has the listener under a topic that this peer sends to. */
  isListed(name: string): boolean {
    for (const { listed, isOnlyWatched } of this.#topics.values()) {
      if (!isOnlyWatched && listed.some((listener) => listener.name === name)) return true;
    }
    return false;
  }

  /**
   * Stops reading. Resolves after running writes of routes, which would otherwise complete after the stop. Never
   * rejects.
   */
  async close(): Promise<void> {
    this.#closed = true;
    await this.reloadAll();
  }

  async reloadAll(wanted: (routes: TopicRoutes) => boolean = () => true): Promise<void> {
    // The store combines queries that start together.
    await Promise.all([...this.#topics.values()].filter(wanted).map((routes) => routes.reload()));
  }

  /** Reads the id and the listeners of a topic, remembers the listeners as routes, and opens links to them. */
  async #read(routes: TopicRoutes): Promise<void> {
    if (this.#closed) return;
    const { store, sender } = this.#context;
    const { topic, isOnlyWatched } = routes;
    const { listeners, routes: met } = await store.listenersAndRoutes(sender, topic);
    const known = isOnlyWatched ? [] : met;
    const before = routes.wasRead ? routes.listed : undefined;
    routes.wasRead = true;
    routes.update(listeners, known);
    if (before !== undefined) this.#reportChanges(routes, before);
    if (routes.isEmpty || isOnlyWatched) {
      routes.ready = false;
      return;
    }
    if (routes.topicId === 0) routes.topicId = await store.idOfTopic(topic);
    const addresses = new Map(known.map(({ name, addr }) => [name, addr]));
    // Together: the store combines them, and anybody who may write the directory can have many listeners there.
    const unknown = listeners.filter(({ name, addr }) => addresses.get(name) !== addr);
    await Promise.all(unknown.map((listener) => store.rememberRoute(sender, topic, listener)));
    if (this.#closed) return;
    await Promise.all(
      routes.listed.map(async (candidate) => {
        const link = this.#links.get(candidate.name);
        if (link === undefined) await this.#links.to(candidate, routes);
        else link.dial.relocate(candidate);
      }),
    );
    // Absent listeners get a link with the first send: most of them are never used again.
    for (const candidate of routes.away) {
      // A listener without an address for this topic may still have one for others.
      if (!this.isListed(candidate.name)) this.#links.get(candidate.name)?.dial.relocate(candidate);
    }
    routes.ready = true;
  }

  /** Reports listeners that have registered or unregistered since `before`. */
  #reportChanges({ topic, listed, isEmpty, isOnlyWatched }: TopicRoutes, before: readonly Candidate[]): void {
    const { status } = this.#context;
    const [here, earlier] = [listed, before].map((list) => new Set(list.map(({ name }) => name))) as [
      Set<string>,
      Set<string>,
    ];
    for (const peer of here) {
      if (earlier.has(peer)) continue;
      status.report({ kind: "peer_subscribed", topic, peer, message: `"${peer}" serves "${topic}"` });
    }
    for (const peer of earlier) {
      if (here.has(peer)) continue;
      status.report({ kind: "peer_unsubscribed", topic, peer, message: `"${peer}" no longer serves "${topic}"` });
      if (!isEmpty || isOnlyWatched) continue;
      status.report({ kind: "sender_route_lost", topic, peer, message: `"${topic}" has no listener any more` });
    }
  }
}
