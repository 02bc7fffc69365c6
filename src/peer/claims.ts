/**
 * A member of a group claims enqueued messages as it has room. Until then they belong to nobody. What is claimed is in a channel of
 * the member, and is handled, committed and taken over like everything else.
 *
 * A member has room if handlers are free, or if few messages wait for the next free one. It asks when it has room and was told that
 * messages wait, or knows it from its last claim; so an idle member asks nothing.
 */
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import { comparePositions, type ListenerChannel } from "../channel/index.js";
import { Backoff } from "../runtime/index.js";
import { type ClaimFrom, isTransientFailure, type Position } from "../store/index.js";
import { asHawserError, type PeerContext } from "./context.js";
import { Pace } from "./pace.js";

/** The receiving side, as far as it takes part. */
export interface Claimant {
  /** Nothing may begin. */
  halted(): boolean;
  /** The peer serves the topic. */
  serves(topic: string): boolean;
  /** How many more handlers may run now. */
  freeHandlers(): number;
  channel(connectionKey: number): ListenerChannel | undefined;
  /** Messages were claimed into the channel. */
  claimed(connectionKey: number): void;
}

export class Claims {
  /** Topics of which messages may wait; like the following, only topics that the peer serves: any login can notify of others. */
  readonly #wanted = new Set<string>();
  /** Topics of which other members have the keys of all that waits. */
  readonly #heldUp = new Set<string>();
  /** Positions by topic before which nothing waits any more. */
  readonly #from = new Map<string, ClaimFrom>();
  readonly #pace = new Pace();
  readonly #backoff = new Backoff({ minMs: storeConstants.storeRetryMinMs, maxMs: storeConstants.storeRetryMaxMs });
  /** The channel of what is claimed, and the last of it that is known. */
  #channel:
    | { readonly connectionKey: number; readonly last: Position; readonly messages: number; readonly at: number }
    | undefined;
  #isAsking = false;
  /** The topics of the claim that is under way. */
  #asked: readonly string[] = [];
  #retry: NodeJS.Timeout | undefined;
  #unlisten: () => void = () => undefined;
  #stopped = false;

  readonly #context: PeerContext;
  readonly #claimant: Claimant;

  constructor(context: PeerContext, claimant: Claimant) {
    this.#context = context;
    this.#claimant = claimant;
  }

  async start(): Promise<void> {
    const { store } = this.#context;
    this.#unlisten = store.on("waiting", (topic) => this.want(topic));
    await store.listenForWaiting();
  }

  stop(): void {
    this.#stopped = true;
    this.#unlisten();
    clearTimeout(this.#retry);
  }

  /** Everything begins again on another database server. */
  forget(): void {
    this.#channel = undefined;
    this.#from.clear();
  }

  /** Messages of the topic may wait. */
  want(topic: string): void {
    if (!this.#claimant.serves(topic)) return;
    this.#wanted.add(topic);
    this.pump();
  }

  /** A handler has ended, of a message of this channel. */
  finished(connectionKey: number): void {
    if (connectionKey === this.#channel?.connectionKey) this.#pace.handled(1, performance.now());
    this.pump();
  }

  /** What this member handles of what another one had claimed may have held up what waits. */
  committed(connectionKey: number): void {
    if (connectionKey === this.#channel?.connectionKey) return;
    // A claim that is under way may not have seen it.
    for (const topic of [...this.#heldUp, ...this.#asked]) this.#wanted.add(topic);
    this.#heldUp.clear();
    this.pump();
  }

  /** Claims, if messages may wait and there is room. */
  pump(): void {
    if (this.#isAsking || this.#stopped || this.#retry !== undefined || this.#wanted.size === 0) return;
    const room = this.#room();
    if (room < 1) return;
    this.#isAsking = true;
    void this.#ask(room).finally(() => {
      this.#isAsking = false;
      this.#asked = [];
      this.pump();
    });
  }

  /** How many messages could begin, or would be the next to do so. */
  #room(): number {
    const { lease } = this.#context;
    if (this.#claimant.halted() || !lease.isWritable) return 0;
    const channel = this.#channel && this.#claimant.channel(this.#channel.connectionKey);
    const ready = channel?.readyMessages ?? 0;
    if (channel !== undefined && channel.waitingMessages - ready >= protocolConstants.groupMostHeldUp) return 0;
    const next = Math.max(protocolConstants.groupLeastUnderWay - 1, this.#pace.lately(performance.now()));
    const free = this.#claimant.freeHandlers();
    const has = ready + this.#coming(channel);
    return has > free + next / 2 ? 0 : Math.min(free + next - has, outboxConstants.pageMessages);
  }

  /** How many messages are claimed and not read yet, at most. They may have been deleted meanwhile. */
  #coming(channel: ListenerChannel | undefined): number {
    if (this.#channel === undefined) return 0;
    const { last, messages, at } = this.#channel;
    const isRead = channel !== undefined && comparePositions(channel.accepted, last) >= 0;
    return isRead || performance.now() > at + storeConstants.pollMs ? 0 : messages;
  }

  async #ask(maxMessages: number): Promise<void> {
    const { store, lease, logger, status, nameLost } = this.#context;
    const { epoch } = lease;
    const topics = this.#nextTopics();
    if (topics.size === 0) return;
    this.#asked = [...topics.keys()];
    try {
      const claimed = await store.claimMessages(
        { name: lease.name, epoch },
        { topics, maxMessages, maxBytes: storeConstants.drainBytes },
      );
      if (this.#stopped || lease.epoch !== epoch) return;
      if (claimed === "fenced") return nameLost("a claim of messages was refused");
      if (claimed.some(({ isAway }) => isAway)) return this.#askLater(topics);
      this.#backoff.reset();
      for (const { topic, ofGroup, hasMore, from } of claimed) {
        if (topic === undefined) continue;
        this.#from.set(topic, { ...this.#from.get(topic), [ofGroup ? "ofGroup" : "any"]: from });
        if (hasMore) this.#wanted.add(topic);
        else this.#heldUp.add(topic);
      }
      const messages = claimed.reduce((sum, { messages }) => sum + messages, 0);
      if (messages === 0) return;
      const { connectionKey, lastNumber } = claimed.at(-1)!;
      this.#channel = { connectionKey, last: { epoch, number: lastNumber }, messages, at: performance.now() };
      this.#claimant.claimed(connectionKey);
    } catch (error) {
      if (this.#stopped) return;
      const failure = asHawserError(error);
      logger.debug({ err: failure }, "could not claim messages; trying again");
      if (!isTransientFailure(failure))
        status.tell({ kind: "listener_store_error", message: failure.message, error: failure });
      // It may have been done all the same.
      if (this.#channel !== undefined) this.#claimant.claimed(this.#channel.connectionKey);
      this.#askLater(topics);
    }
  }

  /** Takes as many of the wanted topics as a claim may name, and forgets those that the peer does not serve any more. */
  #nextTopics(): Map<string, ClaimFrom> {
    const topics = new Map<string, ClaimFrom>();
    for (const topic of this.#wanted) {
      if (topics.size === outboxConstants.claimTopics) break;
      this.#wanted.delete(topic);
      if (this.#claimant.serves(topic)) topics.set(topic, this.#from.get(topic) ?? {});
      else this.#from.delete(topic);
    }
    return topics;
  }

  #askLater(topics: ReadonlyMap<string, unknown>): void {
    for (const topic of topics.keys()) this.#wanted.add(topic);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.pump();
    }, this.#backoff.failed());
  }
}
