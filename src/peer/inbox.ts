/**
 * The receiving side of a running peer: the listening socket, who may come in, a link for each channel, and the handler.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { Isolation } from "../channel/index.js";
import type { HawserError } from "../errors/index.js";
import { Repeated } from "../runtime/index.js";
import type { Channel, CursorCommitter } from "../store/index.js";
import { type Authorization, type Listener, listen } from "../transport/index.js";
import type { HelloFields } from "../wire/index.js";
import { AnnouncedChannels } from "./announced-channels.js";
import { Claims } from "./claims.js";
import { asHawserError, type PeerContext } from "./context.js";
import { Dispatcher } from "./dispatcher.js";
import { HandlerCalls, type PassOn } from "./handler-call.js";
import { ListenerLink, type SharedByLinks } from "./listener-link.js";
import type { TopicHandlers } from "./topic-handlers.js";

export interface InboxOptions {
  readonly context: PeerContext;
  readonly listenAddress: string;
  readonly handlers: TopicHandlers;
  readonly passOn: PassOn;
}

export class Inbox {
  readonly #links = new Map<number, ListenerLink>();
  readonly #opening = new Map<number, Promise<ListenerLink | undefined>>();
  #openingOwned: Promise<void> | undefined;
  /** Channels that were announced and are not open. */
  readonly #unopened = new AnnouncedChannels({
    open: (connectionKeys) => this.#openAmong(connectionKeys),
    findAll: () => this.#findMessages(),
  });
  readonly #isolation: Isolation<ListenerLink>;
  #shared: SharedByLinks;
  #listener: Listener | undefined;
  /** Notifications can be missed. */
  readonly #polls = new Repeated(storeConstants.pollMs, async () => {
    await this.#refreshSecrets();
    await this.#findMessages();
  });
  #unlisten: (() => void)[] = [];
  /** Channels that are being given back: they are not opened. */
  readonly #leaving = new Set<number>();
  #begun = false;
  #halted = false;
  /** Grows when everything begins again: what was read before is not used. */
  #era = 0;
  #closed = false;
  /** Undefined for a peer that is no member of a group. */
  readonly #claims: Claims | undefined;
  /** A Hello did not prove itself since the mesh secrets were read. */
  #secretsInDoubt = false;

  readonly #options: InboxOptions;

  constructor(options: InboxOptions) {
    this.#options = options;
    const { context, handlers, passOn } = options;
    this.#isolation = new Isolation(storeConstants.isolationLimitMs, {
      after: (delayMs, callback) => {
        const timer = setTimeout(callback, delayMs);
        return () => clearTimeout(timer);
      },
      changed: () => this.#haltSome(),
      othersIdle: (holder) =>
        [...this.#links.values()].every(
          (link) => (link === holder || !link.channel.isHandling) && !link.requests.isHandling,
        ),
    });
    const calls = new HandlerCalls(context, handlers, passOn);
    const dispatcher = new Dispatcher(context.settings.concurrency);
    if (context.membership.group !== undefined) {
      this.#claims = new Claims(context, {
        halted: () => this.#handlesNothing || this.#closed,
        serves: (topic) => handlers.serves(topic),
        freeHandlers: () => dispatcher.free,
        channel: (connectionKey) => this.#links.get(connectionKey)?.channel,
        claimed: (connectionKey) => void this.#takeStored(connectionKey),
      });
    }
    this.#shared = {
      context,
      calls,
      dispatcher,
      handlers,
      holdsUpRequests: () => this.#handlesNothing || this.#isolation.holder !== undefined,
      isolation: this.#isolation,
      committer: this.#newCommitter(),
      claims: this.#claims,
      onNotOwned: (connectionKey) => this.#drop(connectionKey),
    };
  }

  /** Binds the socket, and takes what is stored. @throws HawserError `bind_failed`; `store_failed` */
  async start(): Promise<string> {
    const { context, listenAddress } = this.#options;
    const { store, settings, sender, status, secrets } = context;
    await this.#openOwned();
    this.#unlisten = [
      store.on("announced", (connectionKey, listenerName) => {
        if (listenerName === sender.name) this.#announced(connectionKey);
      }),
      store.on("session", (state) => state === "up" && void this.#findMessages()),
    ];
    await store.listenForMessages(sender.name);
    await this.#claims?.start();
    this.#listener = await listen({
      address: listenAddress,
      listenerName: sender.name,
      secrets: () => secrets.all,
      maxMessageBytes: settings.maxMessageBytes,
      tls: context.tls,
      allowPlaintext: settings.allowPlaintext,
      authorize: (hello) => this.#authorize(hello),
      onConnection: (connection, { backlog }) => {
        const { connectionKey, epoch } = connection.hello;
        const link = this.#links.get(connectionKey);
        if (link?.onConnection(connection, epoch, backlog) !== true) {
          connection.destroy();
          return undefined;
        }
        return {
          onBatch: (batch) => link.onBatch(connection, batch),
          onGoLive: () => link.channel.onGoLive(connection),
          onRequest: (request) => link.requests.onRequest(connection, request),
          onCancel: (id) => link.requests.onCancel(connection, id),
          onDrain: () => link.requests.wake(),
          onGoodbye: () => link.onGoodbye(connection),
          onClosed: () => link.onClosed(connection),
        };
      },
      onHandshakeRefused: ({ remoteAddress, code, message }) => {
        if (code === "unauthenticated") this.#secretsInDoubt = true;
        status.tell({ kind: "handshake_refused", address: remoteAddress, code, message });
      },
    });
    await this.#findMessages();
    this.#polls.runIn(storeConstants.pollMs);
    return this.#listener.boundAddress;
  }

  /** From now on messages go to the handler. */
  begin(): void {
    this.#begun = true;
    this.#haltSome();
    // Only what is in the directory may claim.
    if (this.#claims !== undefined) void this.#findMessages();
  }

  /** The peer serves one more topic. */
  serves(topic: string): void {
    this.#claims?.want(topic);
  }

  /** There may be a handler now. */
  handlersChanged(): void {
    this.#haltSome();
  }

  /** The lease is, or is not, surely held: without it nothing is handled. */
  halt(halted: boolean): void {
    this.#halted = halted;
    this.#haltSome();
  }

  /**
   * The name was taken anew after the database changed servers: what was accepted is no longer known to be in order, and
   * no cursor of before may be committed there. Drops it all at once; {@link reopen} begins again from the cursors.
   */
  forget(): void {
    this.#shared.committer.close();
    this.#shared = { ...this.#shared, committer: this.#newCommitter() };
    for (const link of this.#links.values()) {
      link.dropConnection();
      link.close();
    }
    this.#links.clear();
    this.#claims?.forget();
    this.#shared.calls.topics.clear();
    this.#opening.clear();
    this.#unopened.clear();
    this.#leaving.clear();
    this.#era += 1;
  }

  /** Opens the channels from their committed cursors, and takes what is stored. @throws HawserError `store_failed` */
  async reopen(): Promise<void> {
    await this.#openOwned();
    await this.#findMessages();
  }

  /**
   * Closes a channel that is to be given back, when nothing of it is under way. It stays closed until {@link mayOpen}.
   *
   * @returns false if everything has begun again meanwhile: then it is not to be given back
   * @throws HawserError `store_failed` (as a rejection)
   */
  async letGo(connectionKey: number): Promise<boolean> {
    const era = this.#era;
    this.#leaving.add(connectionKey);
    // What was read before the channel goes must not open it afterwards.
    await Promise.all([this.#openingOwned, this.#opening.get(connectionKey), this.#unopened.lookedUp]);
    const link = this.#links.get(connectionKey);
    await link?.giveBack();
    if (era !== this.#era || this.#closed) return false;
    if (link !== undefined && this.#links.get(connectionKey) === link) this.#drop(connectionKey);
    return true;
  }

  /** A channel was given back, or is not to be: it is opened if it still belongs to this peer. */
  mayOpen(connectionKey: number): void {
    if (this.#leaving.delete(connectionKey)) void this.#takeStored(connectionKey);
  }

  /** Starts no handler any more, and waits for those that run and for their cursors. */
  async stop(): Promise<void> {
    this.#polls.stop();
    this.#claims?.stop();
    this.halt(true);
    this.#shared.calls.stopWaiting();
    await Promise.all([...this.#links.values()].flatMap((link) => [link.idle(), link.requests.stop()]));
    for (const link of this.#links.values()) {
      link.run();
      link.channel.mark();
    }
    await this.#shared.committer.drain();
    await Promise.all([...this.#links.values()].map((link) => link.takeBackCount()));
  }

  /** Nobody waits any longer for the handlers that run. */
  abortHandlers(reason: HawserError): void {
    this.#shared.calls.abort(reason);
    for (const link of this.#links.values()) link.requests.abort(reason);
  }

  /** Says Goodbye to every sender and closes the socket. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#polls.stop();
    this.#unopened.stop();
    this.#claims?.stop();
    for (const stop of this.#unlisten) stop();
    for (const link of this.#links.values()) {
      link.sayGoodbye();
      link.close();
    }
    this.#shared.committer.close();
    await this.#listener?.close({ connections: false });
  }

  #haltSome(): void {
    for (const link of this.#links.values()) {
      link.halt(this.#handlesNothing || this.#isolation.blocks(link));
      link.requests.wake();
    }
    this.#claims?.pump();
  }

  get #handlesNothing(): boolean {
    return this.#halted || !this.#begun || this.#options.handlers.isEmpty;
  }

  #newCommitter(): CursorCommitter {
    const { context } = this.#options;
    const { status } = context;
    return context.store.cursorCommitter(context.lease, {
      onCommitted: (commits) => {
        for (const commit of commits) {
          const link = this.#links.get(commit.connectionKey);
          link?.onCommitted(commit);
          if (link?.source.sourceTopic === outboxConstants.claimsTopic) this.#claims?.committed(commit.connectionKey);
        }
      },
      onFenced: () => context.nameLost("a cursor commit was refused"),
      onNotOwned: (connectionKey) => this.#drop(connectionKey),
      onError: (error) => {
        const failure = asHawserError(error);
        status.tell({ kind: "listener_store_error", message: failure.message, error: failure });
      },
    });
  }

  /** The channel belongs to another listener now. */
  #drop(connectionKey: number): void {
    const link = this.#links.get(connectionKey);
    this.#links.delete(connectionKey);
    link?.dropConnection();
    link?.close();
  }

  /** Decides on a Hello that has proved itself: the catalog knows whose channel it is and which epoch counts. */
  async #authorize(hello: HelloFields): Promise<Authorization> {
    const { store, sender, lease } = this.#options.context;
    const refuse = (code: HawserError["code"], message: string): Authorization => ({ accept: false, code, message });
    if (this.#closed || this.#halted) return refuse("busy", `"${sender.name}" is stopping, or not sure of its name`);
    if (this.#leaving.has(hello.connectionKey)) {
      return refuse("busy", `"${sender.name}" gives channel ${hello.connectionKey} back to its listener`);
    }
    const [link, epoch] = await Promise.all([this.#linkOf(hello.connectionKey), store.peerEpoch(hello.senderName)]);
    if (
      link === undefined ||
      link.source.senderName !== hello.senderName ||
      link.source.sourceTopic !== hello.sourceTopic
    ) {
      return refuse("wrong_peer", `channel ${hello.connectionKey} is not one from "${hello.senderName}" to this peer`);
    }
    if (epoch !== hello.epoch) {
      return refuse("fenced", `the catalog has epoch ${epoch ?? "none"} for "${hello.senderName}", not ${hello.epoch}`);
    }
    const backlog = await store.backlogOf(hello.connectionKey, link.channel.accepted);
    const isCurrent = this.#links.get(hello.connectionKey) === link;
    if (!lease.isWritable || this.#halted || !isCurrent || this.#leaving.has(hello.connectionKey)) {
      return refuse("busy", `"${sender.name}" is not sure of its name`);
    }
    return { accept: true, welcome: link.channel.welcome(backlog) };
  }

  /** The link of a channel that this peer owns; undefined for any other. */
  async #linkOf(connectionKey: number): Promise<ListenerLink | undefined> {
    const known = this.#links.get(connectionKey);
    if (known !== undefined) return known;
    if (this.#leaving.has(connectionKey)) return undefined;
    let opening = this.#opening.get(connectionKey);
    if (opening === undefined) {
      const era = this.#era;
      opening = this.#options.context.store
        .channel(connectionKey)
        .then((channel) => this.#open(channel, era))
        .finally(() => this.#era === era && this.#opening.delete(connectionKey));
      this.#opening.set(connectionKey, opening);
    }
    return await opening;
  }

  #open(channel: Channel | undefined, era: number): ListenerLink | undefined {
    if (era !== this.#era) return undefined;
    if (this.#closed || channel === undefined || channel.owner !== this.#options.context.sender.name) return undefined;
    const known = this.#links.get(channel.connectionKey);
    if (known !== undefined) return known;
    const link = new ListenerLink(this.#shared, channel);
    if (this.#handlesNothing || this.#isolation.blocks(link)) link.halt(true);
    this.#links.set(channel.connectionKey, link);
    return link;
  }

  /** Cursors are read here, after the lease was taken, never before. */
  #openOwned(): Promise<void> {
    const { store, sender } = this.#options.context;
    const era = this.#era;
    this.#openingOwned = store.channelsOwnedBy(sender.name).then((channels) => {
      for (const channel of channels) this.#open(channel, era);
    });
    return this.#openingOwned;
  }

  /** Opens those of the channels that this peer owns, and takes what is stored in them. @returns whether one was opened */
  async #openAmong(connectionKeys: readonly number[]): Promise<boolean> {
    const { store, sender, logger } = this.#options.context;
    const era = this.#era;
    let isOpened = false;
    try {
      for (const channel of await store.channelsAmong(connectionKeys, sender.name)) {
        const link = this.#leaving.has(channel.connectionKey) ? undefined : this.#open(channel, era);
        link?.channel.onAnnounced();
        isOpened ||= link !== undefined;
      }
    } catch (err) {
      logger.debug({ err, channels: connectionKeys.length }, "could not look up announced channels; polling on");
    }
    return isOpened;
  }

  /** Takes a notification that messages were stored in a channel. Any login can send it, so that the store is asked for the channel. */
  #announced(connectionKey: number): void {
    const known = this.#links.get(connectionKey);
    if (known !== undefined) known.channel.onAnnounced();
    else if (!this.#leaving.has(connectionKey)) this.#unopened.add(connectionKey);
  }

  /** Takes what is stored in a channel, if this peer owns it. */
  async #takeStored(connectionKey: number): Promise<void> {
    try {
      (await this.#linkOf(connectionKey))?.channel.onAnnounced();
    } catch (error) {
      this.#options.context.logger.debug({ err: error, connectionKey }, "could not look up a channel; polling on");
    }
  }

  /** Notifications can be missed: asks which channels have stored messages. */
  async #findMessages(): Promise<void> {
    const { store, sender, status } = this.#options.context;
    try {
      const { connectionKeys, topics } = await store.channelsWithMessages(sender.name);
      for (const topic of topics) this.#claims?.want(topic);
      for (const connectionKey of connectionKeys) (await this.#linkOf(connectionKey))?.channel.onPolled();
    } catch (error) {
      const failure = asHawserError(error);
      status.tell({ kind: "listener_store_error", message: failure.message, error: failure });
    }
  }

  /** A dialler had a secret that is unknown here: a new one, perhaps. Only with the poll: strangers cost no queries. */
  async #refreshSecrets(): Promise<void> {
    const { secrets, logger } = this.#options.context;
    if (!this.#secretsInDoubt && !secrets.isStale) return;
    this.#secretsInDoubt = false;
    await secrets.refresh().catch((err) => logger.debug({ err }, "could not read the mesh secrets again"));
  }
}
