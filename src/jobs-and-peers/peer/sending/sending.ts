/** Sending side of a running peer: topics, their listeners, and one link per listener. */

import { Delivery } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { protocolConstants } from "../../../../generated/ts/settings/peer.js";
import { asHawserError, HawserError } from "../../../foundation/errors/index.js";
import { Repeated } from "../../../foundation/runtime/index.js";
import { polls } from "../../handlers/polls.js";
import type { CatalogChange } from "../../store/index.js";
import type { RequestOutcome } from "../../worker/counters.js";
import type { PeerContext } from "../core/context.js";
import { GroupOverflow } from "./group-overflow.js";
import { type CheckedMessage, type MessageTopic, Outgoing, type Sent } from "./outgoing.js";
import type { OutgoingRequest } from "./outgoing-request.js";
import type { SenderLink } from "./sender-link.js";
import { SenderLinks } from "./sender-links.js";
import { TopicDirectory } from "./topic-directory.js";
import { awayCandidate, type Candidate, type TopicRoutes } from "./topic-routes.js";

export class Sending {
  /** Links by listener. */
  readonly links: SenderLinks;
  /** Topics that this peer sends to or watches. */
  readonly topics: TopicDirectory;
  /** Periodic reading of the directory, because notifications can be missed. */
  readonly #polls = new Repeated(polls.everyMs, () => this.refresh());
  /** Messages for groups whose members have no room. */
  readonly #overflow: GroupOverflow;
  readonly #unlisten: (() => void)[];
  #closed = false;

  readonly #context: PeerContext;

  constructor(context: PeerContext) {
    this.#context = context;
    this.links = new SenderLinks(context);
    this.topics = new TopicDirectory(context, this.links);
    this.#overflow = new GroupOverflow(context, this.#sendToMember);
    this.#unlisten = [
      context.store.on("catalog", (change) => this.#catalogChanged(change)),
      context.store.on("session", (state) => state === "up" && void this.#sessionUp()),
    ];
    this.#polls.runIn(polls.everyMs);
  }

  /**
   * Sends to one listener of the topic.
   *
   * @throws HawserError (as a rejection) `no_listener`, `invalid_argument`, `busy`, …; `store_failed`
   */
  sendTo(topic: string, message: CheckedMessage): Sent | Promise<Sent> {
    const routes = this.topics.get(topic);
    if (routes?.ready === true && routes.waiting === 0) {
      const sent = routes.isGroup && this.#sendToGroup(routes, message);
      if (sent) return sent;
      const candidate = routes.choose(message.key);
      const link = candidate && this.links.get(candidate.name);
      if (link !== undefined) return this.#sendOver(link, routes, message);
    }
    return this.#inOrder(routes ?? this.topics.add(topic), async (known) => {
      const sent = known.isGroup && this.#sendToGroup(known, message);
      if (sent) return sent;
      const candidate = known.choose(message.key) ?? (await this.#chooseForLater(known));
      if (candidate === undefined) throw noListener(topic);
      return this.#sendOver(await this.links.to(candidate, known), known, message);
    });
  }

  /**
   * Sends a request to one listener of the topic, and to the next one as long as no listener can have started the
   * handler.
   */
  request(topic: string, request: OutgoingRequest): void {
    const routes = this.topics.get(topic);
    if (routes?.ready === true) this.#sendToNext(routes, request);
    else {
      const known = this.#inOrder(routes ?? this.topics.add(topic), async (ready) => ready);
      this.#sendAfter(known, request, (ready) => this.#sendToNext(ready, request));
    }
  }

  /** Sends a request to the next listener, after one that did not accept it. */
  tryNext(request: OutgoingRequest): void {
    const routes = this.topics.get(request.topic!.topic);
    if (routes === undefined) request.fail(request.failure!);
    else this.#sendToNext(routes, request);
  }

  /** Counts a request that is over. */
  requestEnded({ to, topic }: OutgoingRequest, outcome: RequestOutcome): void {
    const counts = topic?.counts ?? this.#context.counters.sentToAny(to);
    counts.requests[outcome] += 1;
  }

  /** Sends to every listener of the topic. Returns a ticket or an error per listener, in the order of the directory. */
  async sendAll(topic: string, message: CheckedMessage): Promise<{ peer: string; ticket: Sent | HawserError }[]> {
    return await this.#inOrder(this.topics.get(topic) ?? this.topics.add(topic), async (known) => {
      if (known.isEmpty) throw noListener(topic);
      const sent: { peer: string; ticket: Sent | HawserError }[] = [];
      for (const candidate of known.all) {
        try {
          const link = await this.links.to(candidate, known);
          sent.push({ peer: candidate.name, ticket: link.send(known, message) });
        } catch (error) {
          sent.push({ peer: candidate.name, ticket: asHawserError(error) });
        }
      }
      return sent;
    });
  }

  /** Sends a reply to a peer by its name, under one of its topics. */
  sendToPeer(name: string, topic: string, message: CheckedMessage): Sent | Promise<Sent> {
    const routes = this.topics.get(topic);
    const open = this.links.get(name);
    if (open !== undefined && routes?.ready === true && routes.waiting === 0) return open.send(routes, message);
    return this.#inOrder(routes ?? this.topics.add(topic), async (known) => {
      const match = known.all.find((one) => one.name === name);
      const candidate = match ?? awayCandidate(name, protocolConstants.maxStoredMessageBytes);
      const link = await this.links.to(candidate, known);
      // A topic without listeners has no id yet, although there may be a link to the peer.
      if (known.topicId === 0) known.topicId = await this.#context.store.idOfTopic(topic);
      return link.send(known, message);
    });
  }

  /** Stores unconfirmed messages. Resolves when no send is pending. */
  async stop(): Promise<void> {
    this.#polls.stop();
    await Promise.all([this.#overflow.drain(), this.links.stop()]);
    // Links may have got what the queue has not taken.
    await this.links.stop();
  }

  /** Rejects all pending sends, because the name is lost. */
  fence(): void {
    this.#overflow.end("name_lost", "the peer has lost its name");
    this.links.fence();
  }

  /** Closes all links and rejects pending sends. Resolves when no message is being written. Never rejects. */
  close(): Promise<void> {
    this.#closed = true;
    const written = this.topics.close();
    this.#polls.stop();
    for (const stop of this.#unlisten) stop();
    this.#overflow.end("not_running", "the peer has stopped");
    this.links.close();
    return written;
  }

  /** Sends a request to the next listener in turn, without those that have refused it. */
  #sendToNext(routes: TopicRoutes, request: OutgoingRequest): void {
    const candidate = routes.chooseUnasked(request.refusedBy);
    if (candidate === undefined) {
      const { topic } = routes;
      request.fail(request.failure ?? (routes.isEmpty ? noListener(topic) : unreachable(topic)));
      return;
    }
    const link = this.links.to(candidate, routes);
    if (link instanceof Promise) this.#sendAfter(link, request, (opened) => opened.request(routes, request));
    else link.request(routes, request);
  }

  /** Continues a request after a lookup, unless its deadline passes first. */
  #sendAfter<T>(known: Promise<T>, request: OutgoingRequest, ask: (known: T) => void): void {
    const timer = setTimeout(() => request.timeOut(), request.until - performance.now());
    known
      .finally(() => clearTimeout(timer))
      .then((value) => request.isOver || ask(value))
      .catch((error) => request.isOver || request.fail(asHawserError(error)));
  }

  /** Sends a message over a link. If it has a key, later messages with that key follow it. */
  #sendOver(link: SenderLink, routes: TopicRoutes, message: CheckedMessage): Sent {
    const sent = link.send(routes, message);
    if (message.key !== undefined && message.delivery === Delivery.AT_LEAST_ONCE) routes.follow(message.key, link);
    return sent;
  }

  /**
   * Sends to a member of the group that has room; if none has room, enqueues the message for any listener of the topic.
   * An at-most-once message goes to the least busy member. Returns undefined if the message has a key, or is
   * at-most-once and no member can be reached: the caller then sends it as to a topic without groups.
   */
  #sendToGroup(routes: TopicRoutes, message: CheckedMessage): Sent | undefined {
    const { delivery, payload, headers, key } = message;
    if (key !== undefined) return undefined;
    if (delivery === Delivery.AT_MOST_ONCE) return routes.chooseIdlest(payload.length)?.send(routes, message);
    const link = routes.chooseWithRoom(payload.length, performance.now());
    if (link !== undefined) return link.send(routes, message);
    const limit = Math.min(routes.maxMessageBytes(), protocolConstants.maxStoredMessageBytes);
    if (payload.length > limit) {
      const text = `the payload has ${payload.length} bytes; the members of "${routes.topic}" accept at most ${limit}`;
      throw new HawserError("invalid_argument", text);
    }
    const waiting = new Outgoing(delivery, routes, payload, headers);
    this.#overflow.add(waiting);
    return waiting;
  }

  /** Hands a message that the queue has not taken to the channel of a member. */
  readonly #sendToMember = (message: Outgoing): Promise<void> => {
    const { topic } = message.topic;
    return this.#inOrder(this.topics.get(topic) ?? this.topics.add(topic), async (routes) => {
      const candidate = routes.choose() ?? (await this.#chooseForLater(routes));
      if (candidate === undefined) throw noListener(topic);
      const link = await this.links.to(candidate, routes);
      link.checkLength(message.payload.length, message.delivery);
      link.offer(message);
    }).catch((error) => message.fail(asHawserError(error)));
  };

  /** Runs a send after the lookup of its topic, in the order of the calls. */
  async #inOrder<T>(routes: TopicRoutes, send: (routes: TopicRoutes) => Promise<T>): Promise<T> {
    const { maxSendQueueMessages } = this.#context.settings;
    if (routes.waiting >= maxSendQueueMessages) {
      throw new HawserError("busy", `${routes.waiting} sends to "${routes.topic}" already wait for the directory`);
    }
    routes.waiting += 1;
    routes.isOnlyWatched = false;
    // All waiting sends share one query.
    const known = routes.ready && !routes.isEmpty ? undefined : routes.load();
    const result = Promise.all([routes.tail, known]).then(async () => {
      if (this.#closed) throw new HawserError("not_running", "the peer has stopped");
      return await send(routes);
    });
    routes.tail = result.catch(() => undefined);
    try {
      return await result;
    } finally {
      routes.waiting -= 1;
      this.topics.forgetUnserved(maxSendQueueMessages);
    }
  }

  /**
   * Chooses a listener to store for if none is reachable and none was used before: the durable one with the smallest
   * backlog, or else the first.
   */
  async #chooseForLater(routes: TopicRoutes): Promise<Candidate | undefined> {
    const { store, logger } = this.#context;
    const durable = routes.all.filter((candidate) => candidate.durable);
    let backlogs = new Map<string, number>();
    try {
      if (durable.length > 1) backlogs = await store.backlogsOf(durable.map(({ name }) => name));
    } catch (err) {
      logger.debug({ err, topic: routes.topic }, "could not read the backlogs of listeners; taking the first one");
    }
    const backlogOf = ({ name }: Candidate): number => backlogs.get(name) ?? 0;
    const [least = routes.all[0]] = durable.sort((a, b) => backlogOf(a) - backlogOf(b));
    if (least !== undefined) routes.use(least);
    return least;
  }

  /** Reads the listeners of a changed topic, which dials those that are new or have moved. */
  #catalogChanged({ topic }: CatalogChange): void {
    void this.topics.get(topic)?.reload();
  }

  /**
   * Looks up the ids of all topics and channels again, including those of waiting messages. @throws HawserError
   * `store_failed`
   */
  async rekey(): Promise<void> {
    const { store } = this.#context;
    const topics = new Set<MessageTopic>([...this.topics.all(), ...this.links.waitingTopics()]);
    const rekey = async (topic: MessageTopic): Promise<void> => {
      topic.topicId = await store.idOfTopic(topic.topic);
    };
    await Promise.all([...topics].filter(({ topicId }) => topicId !== 0).map(rekey));
    await this.links.rekey();
  }

  /**
   * Refreshes everything in a new database session: notifications were missed, and the session may use another
   * database.
   */
  async #sessionUp(): Promise<void> {
    try {
      await this.rekey();
    } catch (err) {
      this.#context.logger.debug({ err }, "could not look up keys in a new session");
    }
    await this.topics.reloadAll();
  }

  /** Reads all topics again, and removes links that were unused since the last call. */
  async refresh(): Promise<void> {
    await this.topics.reloadAll((routes) => routes.ready || routes.isOnlyWatched);
    if (!this.#closed) this.links.forgetIdle((name) => this.topics.isListed(name));
  }
}

function unreachable(topic: string): HawserError {
  return new HawserError("unreachable", `no listener of "${topic}" is in the directory now; start one, or try again`);
}

function noListener(topic: string): HawserError {
  return new HawserError(
    "no_listener",
    `the topic "${topic}" has no listener, and had none when this peer sent to it before`,
  );
}
