/**
 * A peer that was written from docs/protocol.md, docs/store-protocol.md and the generated descriptors alone. It is no
 * more than what the pages ask for; that it can talk to this project's peers shows that they say enough.
 */
import { ForeignListener } from "./foreign-listener.js";
import { ForeignSender } from "./foreign-sender.js";
import type { Handled } from "./messages.js";
import { ForeignStore } from "./store.js";
import type { Wire } from "./wire.js";

export interface ForeignPeerOptions {
  readonly name: string;
  readonly topic: string;
  readonly databaseUrl: string;
  readonly wire: Wire;
}

/** A running foreign peer. */
export class ForeignPeer implements AsyncDisposable {
  readonly handled: Handled[] = [];
  readonly listener: ForeignListener;
  /** By the channel's id: numbers go on in it for as long as the epoch does. */
  readonly #senders = new Map<number, ForeignSender>();
  #stopped = false;

  readonly options: ForeignPeerOptions;
  readonly store: ForeignStore;

  private constructor(options: ForeignPeerOptions, store: ForeignStore) {
    this.options = options;
    this.store = store;
    this.listener = new ForeignListener(store, (message) => this.handled.push(message));
  }

  /** Takes the name, takes what is stored, listens, and enters the directory, in this order. */
  static async start(options: ForeignPeerOptions): Promise<ForeignPeer> {
    const store = await ForeignStore.open(options.databaseUrl, options.name);
    const peer = new ForeignPeer(options, store);
    const { listener } = peer;
    const address = await options.wire.listen({
      listenerName: options.name,
      secrets: await store.secrets(),
      decide: (hello) => listener.decide(hello),
      onConnection: (hello, connection) => listener.onConnection(hello, connection),
    });
    await store.register(options.topic, address, (channelId) => void listener.announced(channelId));
    await listener.start();
    return peer;
  }

  get texts(): string[] {
    return this.handled.map(({ text }) => text);
  }

  /** A channel to the first listener of the topic, or to the first that was met: connected if it can be dialled. */
  async channelTo(topic: string): Promise<{ sender: ForeignSender; topicId: number; refused: string | undefined }> {
    const { store, options } = this;
    const [listed] = await store.listenersOf(topic);
    const [met] = await store.routesOf(options.topic, topic);
    const listenerName = listed?.listener_name ?? met;
    if (listenerName === undefined) throw new Error(`nobody serves "${topic}", and nobody ever did`);
    if (listed !== undefined) await store.rememberRoute(options.topic, topic, listed);
    const { channel_id } = await store.openChannel(options.topic, listenerName);
    const address = await store.addressOf(listenerName);
    const sender = this.#senders.get(channel_id) ?? new ForeignSender(store, channel_id, listenerName);
    this.#senders.set(channel_id, sender);
    const [secret] = await store.secrets();
    const refused =
      address === undefined
        ? "not listed"
        : await sender.connect(options.wire, address, secret as Uint8Array, options.topic);
    return { sender, topicId: await store.idOfTopic(topic), refused };
  }

  /** Goodbyes, then the directory, then the name. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const sender of this.#senders.values()) await sender.close();
    await this.listener.stop();
    await this.store[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
