/**
 * Inbox: the receiving side of a running peer. It owns the listening socket, authorizes connections, and has one link
 * per channel.
 */

import type { HawserError } from "../../../foundation/errors/index.js";
import { Repeated } from "../../../foundation/runtime/index.js";
import { polls } from "../../handlers/polls.js";
import type { TopicHandlers } from "../../handlers/topic-handlers.js";
import { QueueWorker } from "../../queue/worker/queue-worker.js";
import type { Channel, CursorCommitter } from "../../store/index.js";
import { type Authorization, type Listener, listen } from "../../transport/index.js";
import type { HelloFields } from "../../wire/index.js";
import type { PeerContext } from "../core/context.js";
import { AnnouncedChannels } from "./announced-channels.js";
import { ChannelCalls } from "./channel-calls.js";
import { ListenerLink } from "./listener-link.js";
import type { Receiver } from "./receiver.js";
import { RequestCalls } from "./request-calls.js";

export class Inbox implements Receiver {
  readonly context: PeerContext;
  readonly handlers: TopicHandlers;
  readonly calls: Receiver["calls"];
  readonly channelCalls: ChannelCalls;
  readonly requestCalls: RequestCalls;
  readonly dispatcher: Receiver["dispatcher"];
  readonly quarantine: Receiver["quarantine"];
  committer: CursorCommitter;
  readonly #links = new Map<number, ListenerLink>();
  readonly worker: QueueWorker;
  /** Queries whose channels will be opened. */
  readonly #opening = new Set<Promise<unknown>>();
  /** Announced channels that are not open. */
  readonly #unopened = new AnnouncedChannels({
    open: (channelIds) => this.#openListed(channelIds),
    findAll: () => this.#findMessages(),
  });
  #listener: Listener | undefined;
  /** Polling, because notifications can be missed. */
  readonly #polls = new Repeated(polls.everyMs, async () => {
    await this.#refreshSecrets();
    // Without handlers nothing that is stored can be handled.
    this.#isPollMissed = this.handlers.isEmpty;
    if (!this.#isPollMissed) await this.#findMessages();
  });
  #isPollMissed = false;
  #unlisten: (() => void)[] = [];
  /** Incremented by each reset: results of queries from an earlier era are ignored. */
  #era = 0;
  #closed = false;
  /** True if a Hello failed authentication since the mesh secrets were read. */
  #hadUnknownSecret = false;

  constructor(context: PeerContext, handlers: TopicHandlers) {
    this.context = context;
    this.handlers = handlers;
    this.worker = new QueueWorker(context, handlers, {
      changed: () => this.#updateHalts(),
      isIdleBeside: (holder) =>
        [...this.#links.values()].every(
          (link) => (link === holder || !link.channel.isHandling) && !link.requests.isHandling,
        ),
    });
    const { calls, dispatcher, quarantine } = this.worker;
    [this.calls, this.dispatcher, this.quarantine] = [calls, dispatcher, quarantine];
    this.channelCalls = new ChannelCalls(context, handlers, calls);
    this.requestCalls = new RequestCalls(context, handlers, calls.attempts);
    this.committer = this.#newCommitter();
  }

  /** Binds the socket and reads stored messages. @throws HawserError `bind_failed`; `store_failed` */
  async start(listenAddress: string): Promise<string> {
    const { store, settings, sender, status, secrets, tls } = this.context;
    await this.worker.readPauses();
    await this.#openOwned();
    this.#unlisten = [
      store.on("announced", (channelId, listenerName) => {
        if (listenerName === sender.name) this.#announced(channelId);
      }),
      store.on("session", (state) => state === "up" && void this.#findMessages()),
    ];
    await store.listenForMessages(sender.name);
    this.#listener = await listen({
      address: listenAddress,
      listenerName: sender.name,
      secrets: () => secrets.all,
      maxMessageBytes: settings.maxMessageBytes,
      tls,
      allowPlaintext: settings.allowPlaintext,
      authorize: (hello) => this.#authorize(hello),
      onConnection: (connection, { backlog }) => {
        const { channelId, epoch } = connection.hello;
        const link = this.#links.get(channelId);
        if (link?.onConnection(connection, epoch, backlog) !== true) {
          connection.destroy();
          return undefined;
        }
        return link;
      },
      onHandshakeRefused: ({ remoteAddress, code, message }) => {
        if (code === "unauthenticated") this.#hadUnknownSecret = true;
        status.report({ kind: "handshake_refused", address: remoteAddress, code, message });
      },
    });
    await this.#findMessages();
    this.#polls.runIn(polls.everyMs);
    return this.#listener.boundAddress;
  }

  /** Starts to call handlers. */
  startHandling(): void {
    this.worker.start();
  }

  /**
   * Pauses or resumes all links, after the first handler was set or the last one removed. Wakes messages and requests
   * that waited for the limit of a handler that was replaced or removed, or for the end of a pause.
   */
  handlersChanged(): void {
    for (const { channel } of this.#links.values()) channel.handlersChanged();
    this.worker.handlersChanged();
    if (this.#isPollMissed && !this.handlers.isEmpty) this.#polls.soon();
  }

  /** Reads whether a topic is paused that got its first handler. @throws HawserError `store_failed` */
  async readPause(topic: string): Promise<void> {
    await this.worker.readPause(topic);
  }

  /** Takes also what is enqueued for listeners that are away. */
  standInFor(names: readonly string[]): void {
    this.worker.standInFor(names);
  }

  /** Stops starting handlers while the lease is suspended, or resumes it. Running handlers continue. */
  halt(halted: boolean): void {
    this.worker.halt(halted);
  }

  /**
   * Discards all channels, after a renewal of the lease on another database server. Accepted messages and cursors of
   * the old server may not match the new one. {@link reopen} continues from the committed cursors.
   */
  reset(): void {
    this.committer.close();
    this.committer = this.#newCommitter();
    for (const link of this.#links.values()) {
      link.dropConnection();
      link.close();
    }
    this.#links.clear();
    this.worker.reset();
    this.channelCalls.topics.clear();
    this.#opening.clear();
    this.#unopened.clear();
    this.#era += 1;
  }

  /** Opens the channels from their committed cursors and reads stored messages. @throws HawserError `store_failed` */
  async reopen(): Promise<void> {
    await this.#openOwned();
    await this.#findMessages();
  }

  /** Stops starting handlers, tells the running ones, and waits for them and their cursors. */
  async stop(reason: HawserError): Promise<void> {
    this.#polls.stop();
    const idle = Promise.all([...this.#links.values()].map((link) => link.idle()));
    const stopped = this.worker.stop(reason, idle);
    for (const link of this.#links.values()) link.requests.stopping(reason);
    await Promise.all([stopped, idle, ...[...this.#links.values()].map((link) => link.requests.stop())]);
    for (const link of this.#links.values()) link.run();
    await this.#leaveUnfinished();
  }

  async #leaveUnfinished(): Promise<void> {
    await Promise.all([...this.#links.values()].map((link) => link.leaveUnfinished()));
    await this.committer.drain();
  }

  /** Aborts the signals of all running handlers. */
  abortHandlers(reason: HawserError): void {
    this.calls.attempts.abort(reason);
    for (const link of this.#links.values()) link.requests.abort(reason);
  }

  /** Cuts off the handlers that still run, at the deadline of a stop. Their messages are handled again, as the same attempt. */
  async cutOff(): Promise<void> {
    await Promise.all([this.worker.cutOff(), this.#leaveUnfinished()]);
  }

  /** Says Goodbye to every sender, and closes the socket. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#polls.stop();
    this.#unopened.stop();
    this.worker.close();
    for (const stop of this.#unlisten) stop();
    for (const link of this.#links.values()) {
      link.sayGoodbye();
      link.close();
    }
    this.committer.close();
    await this.#listener?.close({ connections: false });
  }

  #updateHalts(): void {
    for (const link of this.#links.values()) {
      link.halt(this.isPaused || this.quarantine.blocks(link));
      link.requests.wake();
    }
  }

  /** True for one peer of the database, for what one process is to do. */
  isFirst(): boolean {
    return this.worker.isFirst();
  }

  /** Current numbers of the receiving side, for metrics. */
  get numbers(): { readonly connections: number; readonly running: number; queued: number } {
    const numbers = { connections: 0, ...this.worker.numbers };
    for (const { channel, requests } of this.#links.values()) {
      if (channel.isConnected) numbers.connections += 1;
      numbers.running += channel.runningMessages + requests.running;
      numbers.queued += channel.waitingMessages;
    }
    return numbers;
  }

  get isPaused(): boolean {
    return this.worker.isPaused;
  }

  #newCommitter(): CursorCommitter {
    const { context } = this;
    return context.store.cursorCommitter(context.lease, {
      onCommitted: (commits, rows) => {
        for (const commit of commits) this.#links.get(commit.channelId)?.onCommitted(commit, rows);
      },
      onFenced: () => context.nameLost("the store rejected a cursor commit"),
      onNotOwned: (channelId) => this.closeLink(channelId),
      onError: (error) => context.status.storeFailed(error),
    });
  }

  /** Closes the link of a channel that belongs to another listener. */
  closeLink(channelId: number): void {
    const link = this.#links.get(channelId);
    this.#links.delete(channelId);
    link?.dropConnection();
    link?.close();
  }

  /**
   * Authorizes an authenticated Hello. The catalog decides who owns the channel, and which epoch of the sender is
   * current.
   */
  async #authorize(hello: HelloFields): Promise<Authorization> {
    const { store, sender, lease } = this.context;
    const refuse = (code: HawserError["code"], message: string): Authorization => ({ accept: false, code, message });
    if (this.#closed || this.worker.isHalted)
      return refuse("busy", `"${sender.name}" is stopping, or its lease is suspended`);
    const [link, epoch] = await Promise.all([this.#linkOf(hello.channelId), store.peerEpoch(hello.senderName)]);
    if (
      link === undefined ||
      link.source.senderName !== hello.senderName ||
      link.source.sourceTopic !== hello.sourceTopic
    ) {
      return refuse("wrong_peer", `channel ${hello.channelId} is not one from "${hello.senderName}" to this peer`);
    }
    if (epoch !== hello.epoch) {
      return refuse("fenced", `the catalog has epoch ${epoch ?? "none"} for "${hello.senderName}", not ${hello.epoch}`);
    }
    const backlog = await store.backlogOf(hello.channelId, link.channel.accepted);
    const isCurrent = this.#links.get(hello.channelId) === link;
    if (!lease.isWritable || this.worker.isHalted || !isCurrent) {
      return refuse("busy", `"${sender.name}" has lost its lease or the channel for now`);
    }
    return { accept: true, welcome: link.channel.welcome(backlog) };
  }

  /** Link of a channel that this peer owns; undefined for any other channel. */
  async #linkOf(channelId: number): Promise<ListenerLink | undefined> {
    const known = this.#links.get(channelId);
    if (known !== undefined) return known;
    const { store, sender } = this.context;
    const [link] = await this.#open(store.channelsAmong([channelId], sender.name));
    return link;
  }

  /** Opens channels of this peer. @throws the error of the query */
  #open(query: Promise<readonly Channel[]>): Promise<ListenerLink[]> {
    const era = this.#era;
    const opening = query
      .then((channels) => (era === this.#era ? channels.flatMap((channel) => this.#openOne(channel) ?? []) : []))
      .finally(() => this.#opening.delete(opening));
    this.#opening.add(opening);
    return opening;
  }

  #openOne(channel: Channel): ListenerLink | undefined {
    const { channelId } = channel;
    const known = this.#links.get(channelId);
    if (known !== undefined || this.#closed) return known;
    const link = new ListenerLink(this, channel);
    if (this.isPaused || this.quarantine.blocks(link)) link.halt(true);
    this.#links.set(channelId, link);
    return link;
  }

  /** Reads the cursors of the owned channels. Cursors that were read before the lease was taken could be obsolete. */
  async #openOwned(): Promise<void> {
    const { store, sender } = this.context;
    await this.#open(store.channelsOwnedBy(sender.name));
  }

  /**
   * Opens the given channels that this peer owns, and reads their stored messages. @returns true if a channel was
   * opened
   */
  async #openListed(channelIds: readonly number[]): Promise<boolean> {
    const { store, sender, logger } = this.context;
    try {
      const links = await this.#open(store.channelsAmong(channelIds, sender.name));
      for (const { channel } of links) channel.onAnnounced();
      return links.length > 0;
    } catch (err) {
      logger.debug({ err, channels: channelIds.length }, "could not look up announced channels; the next poll retries");
      return false;
    }
  }

  /**
   * Handles a notification of stored messages in a channel. Any login can send one, so an unknown channel is looked up
   * in the store.
   */
  #announced(channelId: number): void {
    const known = this.#links.get(channelId);
    if (known !== undefined) known.channel.onAnnounced();
    else this.#unopened.add(channelId);
  }

  /** Finds and reads all stored messages, because notifications can be missed. */
  async #findMessages(): Promise<void> {
    const { store, sender, status } = this.context;
    try {
      for (const channelId of await store.channelsWithMessages(sender.name))
        (await this.#linkOf(channelId))?.channel.onPolled();
    } catch (error) {
      status.storeFailed(error);
    }
  }

  /**
   * Reads the mesh secrets if a dialler used an unknown one, which may be new. Only polling triggers this, so that
   * strangers cannot cause queries.
   */
  async #refreshSecrets(): Promise<void> {
    const { secrets, logger } = this.context;
    if (!this.#hadUnknownSecret && !secrets.isStale) return;
    this.#hadUnknownSecret = false;
    await secrets.refresh().catch((err) => logger.debug({ err }, "could not reload the mesh secrets"));
  }
}
