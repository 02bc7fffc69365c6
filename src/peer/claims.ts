/**
 * Claims of enqueued messages by a member of a group. An unclaimed message belongs to no listener. A claimed message is
 * in a channel of the member, and is handled, committed and taken over like any other message.
 *
 * A member has room if handlers are free or if few messages wait for the next free handler. It sends a claim query only
 * if it has room, and if a notification or its last claim shows that there may be unclaimed messages. An idle member
 * sends no queries. A topic whose handlers have concurrency limits is claimed by a query of its own, for as many
 * messages as those limits have room for.
 */

import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { type ConcurrencyLimit, comparePositions, type ListenerChannel } from "../channel/index.js";
import { postgresBackoff } from "../postgres/index.js";
import { Backoff } from "../runtime/index.js";
import { type ClaimFrom, drainBytes, isTransientFailure, type Position } from "../store/index.js";
import { asHawserError, type PeerContext } from "./context.js";
import { groupLeastUnderWay, Pace } from "./pace.js";
import { polls } from "./polls.js";

/**
 * Number of claimed messages waiting for a retry, or behind such a message of their key, at which a group member
 * stops claiming.
 */
const groupMostHeldUp = 256;

/**
 * Maximum number of topics in one claim of a group member: half the limit of claim_messages, because each topic is
 * named for any member and for the group.
 */
export const claimTopics = 50_000;

/** State and operations of the inbox that claims need. */
export interface Claimant {
  /** True if no handler may start. */
  halted(): boolean;
  serves(topic: string): boolean;
  /** Concurrency limits of the handlers of a topic; undefined unless each of its handlers has one. */
  limitsOf(topic: string): readonly ConcurrencyLimit[] | undefined;
  /** Number of further handlers that can start now. */
  freeHandlers(): number;
  channel(channelId: number): ListenerChannel | undefined;
  /** Reads the newly claimed messages of the channel. */
  claimed(channelId: number): void;
}

export class Claims {
  /**
   * Topics that may have unclaimed messages. Like the fields below, it has only topics that the peer serves, because
   * any login can send notifications for other topics.
   */
  readonly #unclaimedTopics = new Set<string>();
  /** Topics whose unclaimed messages all have keys that other members are handling. */
  readonly #blockedTopics = new Set<string>();
  /** Positions by topic before which there are no unclaimed messages. */
  readonly #startPositions = new Map<string, ClaimFrom>();
  readonly #pace = new Pace();
  readonly #limitPaces = new WeakMap<ConcurrencyLimit, Pace>();
  readonly #backoff = new Backoff(postgresBackoff);
  /** Channel of the claimed messages, and the last claim into it. */
  #channel:
    | { readonly channelId: number; readonly last: Position; readonly messages: number; readonly at: number }
    | undefined;
  #isClaiming = false;
  /** Topics of the running claim query. */
  #queriedTopics: readonly string[] = [];
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
    this.#unlisten = store.on("waiting", (topic) => this.onUnclaimed(topic));
    await store.listenForWaiting();
  }

  stop(): void {
    this.#stopped = true;
    this.#unlisten();
    clearTimeout(this.#retry);
  }

  /** Resets all positions, after a move to another database server. */
  reset(): void {
    this.#channel = undefined;
    this.#startPositions.clear();
  }

  /** Records that the topic may have unclaimed messages. */
  onUnclaimed(topic: string): void {
    if (!this.#claimant.serves(topic)) return;
    this.#unclaimedTopics.add(topic);
    this.pump();
  }

  /** Records the end of a handler that ran for a message of the channel. @param limit limit under which it ran */
  finished(channelId: number, limit: ConcurrencyLimit | undefined): void {
    if (channelId === this.#channel?.channelId) {
      const now = performance.now();
      this.#pace.handled(1, now);
      if (limit !== undefined) this.#paceUnder(limit).handled(1, now);
    }
    this.pump();
  }

  /**
   * Records a commit in a channel of claimed messages. If another member has claimed them, their keys may be free now.
   */
  committed(channelId: number): void {
    if (channelId === this.#channel?.channelId) return;
    // The running claim query may not have seen this commit.
    for (const topic of [...this.#blockedTopics, ...this.#queriedTopics]) this.#unclaimedTopics.add(topic);
    this.#blockedTopics.clear();
    this.pump();
  }

  /** Starts a claim query if there may be unclaimed messages and room for them. */
  pump(): void {
    if (this.#isClaiming || this.#stopped || this.#retry !== undefined || this.#unclaimedTopics.size === 0) return;
    const room = this.#room();
    if (room < 1) return;
    const [topics, maxMessages] = this.#nextTopics(room);
    if (topics.size === 0) return;
    this.#isClaiming = true;
    void this.#claim(topics, maxMessages).finally(() => {
      this.#isClaiming = false;
      this.#queriedTopics = [];
      this.pump();
    });
  }

  /** Number of messages to claim: those that can start now, or will be the next to start. */
  #room(): number {
    const { lease } = this.#context;
    if (this.#claimant.halted() || !lease.isWritable) return 0;
    const channel = this.#channel && this.#claimant.channel(this.#channel.channelId);
    const ready = channel?.readyMessages ?? 0;
    if (channel !== undefined && channel.waitingMessages - ready >= groupMostHeldUp) return 0;
    const has = ready + this.#unreadMessages(channel);
    const room = roomFor(has, this.#claimant.freeHandlers(), this.#pace.recent(performance.now()));
    return Math.min(room, outboxConstants.pageMessages);
  }

  /** Number of messages of a topic to claim, by the limits of its handlers. */
  #roomUnder(limits: readonly ConcurrencyLimit[]): number {
    const channel = this.#channel && this.#claimant.channel(this.#channel.channelId);
    const now = performance.now();
    let [has, free, recent] = [this.#unreadMessages(channel), 0, 0];
    for (const limit of limits) {
      has += channel?.waitingFor(limit) ?? 0;
      free += limit.free;
      recent += this.#paceUnder(limit).recent(now);
    }
    return roomFor(has, free, recent);
  }

  #paceUnder(limit: ConcurrencyLimit): Pace {
    let pace = this.#limitPaces.get(limit);
    if (pace === undefined) {
      pace = new Pace();
      this.#limitPaces.set(limit, pace);
    }
    return pace;
  }

  /**
   * Upper bound of the messages that are claimed and not read yet. It expires after `pollMs`, because they may have
   * been deleted.
   */
  #unreadMessages(channel: ListenerChannel | undefined): number {
    if (this.#channel === undefined) return 0;
    const { last, messages, at } = this.#channel;
    const isRead = channel !== undefined && comparePositions(channel.accepted, last) >= 0;
    return isRead || performance.now() > at + polls.everyMs ? 0 : messages;
  }

  async #claim(topics: ReadonlyMap<string, ClaimFrom>, maxMessages: number): Promise<void> {
    const { store, lease, logger, status, nameLost } = this.#context;
    const { epoch } = lease;
    this.#queriedTopics = [...topics.keys()];
    try {
      const claimed = await store.claimMessages(
        { name: lease.name, epoch },
        { topics, maxMessages, maxBytes: drainBytes },
      );
      if (this.#stopped || lease.epoch !== epoch) return;
      if (claimed === "fenced") return nameLost("the store rejected a claim of messages");
      if (claimed.some(({ isAway }) => isAway)) return this.#retryLater(topics);
      this.#backoff.reset();
      for (const { topic, ofGroup, hasMore, from } of claimed) {
        if (topic === undefined) continue;
        this.#startPositions.set(topic, { ...this.#startPositions.get(topic), [ofGroup ? "ofGroup" : "any"]: from });
        if (hasMore) this.#unclaimedTopics.add(topic);
        else this.#blockedTopics.add(topic);
      }
      const messages = claimed.reduce((sum, { messages }) => sum + messages, 0);
      if (messages === 0) return;
      const { channelId, lastNumber } = claimed.at(-1)!;
      this.#channel = { channelId, last: { epoch, number: lastNumber }, messages, at: performance.now() };
      this.#claimant.claimed(channelId);
    } catch (error) {
      if (this.#stopped) return;
      const failure = asHawserError(error);
      logger.debug({ err: failure }, "could not claim messages; retrying");
      if (!isTransientFailure(failure))
        status.report({ kind: "listener_store_error", message: failure.message, error: failure });
      // The claim may have been committed despite the error.
      if (this.#channel !== undefined) this.#claimant.claimed(this.#channel.channelId);
      this.#retryLater(topics);
    }
  }

  /**
   * Removes up to `claimTopics` topics without a limit from `#unclaimedTopics`, or one topic whose limits have room.
   * Also removes topics that the peer no longer serves.
   *
   * @returns the topics, and the number of messages to claim
   */
  #nextTopics(room: number): [ReadonlyMap<string, ClaimFrom>, number] {
    const topics = new Map<string, ClaimFrom>();
    for (const topic of this.#unclaimedTopics) {
      if (topics.size === claimTopics) break;
      if (!this.#claimant.serves(topic)) {
        this.#unclaimedTopics.delete(topic);
        this.#startPositions.delete(topic);
        continue;
      }
      const limits = this.#claimant.limitsOf(topic);
      const roomOfTopic = limits && this.#roomUnder(limits);
      if (roomOfTopic !== undefined && (roomOfTopic < 1 || topics.size > 0)) continue;
      this.#unclaimedTopics.delete(topic);
      topics.set(topic, this.#startPositions.get(topic) ?? {});
      if (roomOfTopic !== undefined) return [topics, Math.min(room, roomOfTopic)];
    }
    return [topics, room];
  }

  #retryLater(topics: ReadonlyMap<string, unknown>): void {
    for (const topic of topics.keys()) this.#unclaimedTopics.add(topic);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.pump();
    }, this.#backoff.failed());
  }
}

/**
 * Number of messages to claim: those that can start now, or will be the next to start.
 *
 * @param has number of claimed messages that can start
 * @param recent number of messages that ended recently
 */
function roomFor(has: number, free: number, recent: number): number {
  const next = Math.max(groupLeastUnderWay - 1, recent);
  return has > free + next / 2 ? 0 : free + next - has;
}
