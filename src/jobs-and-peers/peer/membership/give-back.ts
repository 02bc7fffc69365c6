/**
 * Returns channels that this peer has taken over. A member of a group returns the channels of a listener when that
 * listener is running again, so that it gets work from its earlier senders. Every peer passes a channel on when a
 * message arrives for a topic that another listener serves and this peer does not.
 *
 *     no new handlers ▶ running handlers end ▶ their cursors are committed ▶ the channel is closed here
 *       ▶ the catalog changes the owner ▶ listener and sender are notified
 *
 * The channel stays closed here until the catalog has answered. If the answer is lost, the query is repeated, and a
 * channel that keeps its owner stays closed while the lost statement may still be running. The owner, which can be this
 * peer, then opens the channel from its committed cursor. After a crash at any point the catalog has exactly one owner,
 * and messages after the cursor are stored or still held by their sender.
 */
import { asHawserError } from "../../../foundation/errors/index.js";
import { postgresBackoff } from "../../../foundation/postgres/index.js";
import { Backoff, Repeated, shared } from "../../../foundation/runtime/index.js";
import { polls } from "../../handlers/polls.js";
import { statementTimeoutMs } from "../../store/index.js";
import type { PeerContext } from "../core/context.js";
import type { PassedOn } from "../receiving/channel-calls.js";
import type { Inbox } from "../receiving/inbox.js";

export class GiveBack {
  /**
   * Channels that are being returned. The value is the id of the topic that needs another listener, or undefined for a
   * return within a group.
   */
  readonly #returning = new Map<number, number | undefined>();
  /** Running queries by channel and topic: many messages may need the same answer. */
  readonly #ownerQueries = new Map<string, ReturnType<PeerContext["store"]["newOwnerOf"]>>();
  /** Channels that are being returned and are already closed here. */
  readonly #closed = new Set<number>();
  readonly #backoff = new Backoff(postgresBackoff);
  /** Polling, because notifications can be missed. */
  readonly #polls = new Repeated(polls.everyMs, () => this.#findChannels());
  #retry: NodeJS.Timeout | undefined;
  /** Until this time (`performance.now()`, ms) a statement whose answer was lost may still be committed. */
  #uncertainUntil = Number.NEGATIVE_INFINITY;
  #unlisten: (() => void)[] = [];
  #stopped = false;

  readonly #context: PeerContext;
  readonly #inbox: Inbox;

  constructor(context: PeerContext, inbox: Inbox) {
    this.#context = context;
    this.#inbox = inbox;
  }

  start(): void {
    const { store, sender, lease, membership } = this.#context;
    this.#unlisten = [
      // After a renewal the inbox reopens its channels from the catalog; results for the old epoch are obsolete.
      lease.onRenewed(() => {
        this.#returning.clear();
        this.#closed.clear();
      }),
    ];
    if (membership.group === undefined) return;
    this.#unlisten.push(
      store.on("catalog", ({ listenerName, operation }) => {
        if (operation !== "delete" && listenerName !== sender.name) this.#polls.soon();
      }),
    );
    this.#polls.soon();
  }

  stop(): void {
    this.#stopped = true;
    this.#polls.stop();
    clearTimeout(this.#retry);
    for (const stop of this.#unlisten) stop();
  }

  /**
   * Passes a channel on after a message for a topic that this peer does not serve. If another listener serves the
   * topic, the channel goes there as soon as it has no running handlers and no uncommitted cursor.
   *
   * @throws HawserError `store_failed` (as a rejection)
   */
  async passOn(channelId: number, topicId: number): Promise<PassedOn> {
    const { store, sender, lease, logger } = this.#context;
    const { epoch } = lease;
    if (this.#returning.has(channelId)) return "moved";
    const queryKey = `${channelId} ${topicId}`;
    let query = this.#ownerQueries.get(queryKey);
    if (query === undefined) {
      query = store.newOwnerOf(sender.name, channelId, topicId).finally(() => this.#ownerQueries.delete(queryKey));
      this.#ownerQueries.set(queryKey, query);
    }
    const { owned, newOwner } = await query;
    if (!owned) return "notOwned";
    if (newOwner === undefined) return "kept";
    if (this.#stopped || lease.epoch !== epoch || this.#returning.has(channelId)) return "moved";
    this.#returning.set(channelId, topicId);
    logger.debug(
      { channelId, heir: newOwner },
      "passing a channel on to a listener of its topic, after its running handlers",
    );
    void this.#closeAndReturn(channelId, epoch);
    return "moved";
  }

  /** Finds the channels to return, and starts to close them. */
  async #findChannels(): Promise<void> {
    const { store, sender, lease, logger } = this.#context;
    try {
      if (this.#stopped || lease.state !== "held" || !lease.isWritable) return;
      const { epoch } = lease;
      const found = await store.channelsToGiveBack(sender.name);
      if (this.#stopped || lease.epoch !== epoch) return;
      for (const channelId of found) {
        if (this.#returning.has(channelId)) continue;
        this.#returning.set(channelId, undefined);
        logger.debug({ channelId }, "returning a channel to its listener, after its running handlers");
        void this.#closeAndReturn(channelId, epoch);
      }
    } catch (err) {
      logger.debug({ err }, "could not look up channels to return; retrying");
    }
  }

  async #closeAndReturn(channelId: number, epoch: number): Promise<void> {
    let isClosed = false;
    try {
      isClosed = await this.#inbox.closeForReturn(channelId);
    } catch (err) {
      this.#context.logger.debug({ err, channelId }, "could not close a channel that should be returned");
    }
    if (this.#stopped || this.#context.lease.epoch !== epoch) return;
    if (!isClosed) {
      this.#returning.delete(channelId);
      this.#inbox.allowOpen(channelId);
      return;
    }
    this.#closed.add(channelId);
    void this.#returnClosed();
  }

  /** Returns all closed channels with one query, and runs one query at a time. */
  readonly #returnClosed = shared(async () => {
    const { store, lease, logger, nameLost } = this.#context;
    // Channels that are closed in the same event loop turn share one query.
    await Promise.resolve();
    while (this.#closed.size > 0 && !this.#stopped) {
      const { epoch } = lease;
      const channels = new Map([...this.#closed].map((key) => [key, this.#returning.get(key)] as const));
      try {
        const returned = await store.giveBack({ name: lease.name, epoch }, channels);
        if (this.#stopped || lease.epoch !== epoch) continue;
        this.#backoff.reset();
        if (returned.length > 0) logger.info({ channels: returned.length }, "returned channels that were taken over");
        const isUncertain = performance.now() < this.#uncertainUntil;
        for (const channelId of channels.keys()) {
          if (isUncertain && !returned.includes(channelId)) continue;
          this.#closed.delete(channelId);
          this.#returning.delete(channelId);
          this.#inbox.allowOpen(channelId);
        }
        if (isUncertain && this.#closed.size > 0) return this.#retryLater(postgresBackoff.maxMs);
      } catch (error) {
        if (this.#stopped || lease.epoch !== epoch) continue;
        const { code, outcome } = asHawserError(error);
        if (code === "fenced") return nameLost("the store rejected the return of channels");
        if (outcome === "unknown") this.#uncertainUntil = performance.now() + statementTimeoutMs;
        logger.debug({ err: error }, "could not return channels; retrying");
        return this.#retryLater(this.#backoff.failed());
      }
    }
  });

  #retryLater(delayMs: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#returnClosed(), delayMs);
  }
}
