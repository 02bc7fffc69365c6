/**
 * Gives channels back that this peer has taken over. A member of a group does so when the listeners that they were made for run
 * again: so these get work from senders that knew them before. Every peer does so when a message comes that another listener
 * serves, and this one does not.
 *
 *     no handler begins any more ▶ those that run end ▶ their cursors are committed ▶ the channel is closed here
 *       ▶ the catalog changes its owner ▶ listener and sender are told
 *
 * Until the catalog has answered the channel stays closed here. If the answer is lost, it is asked again, and a channel that
 * does not go back stays closed as long as the lost statement may still run. Whoever is the owner then opens the channel from
 * its committed cursor, this peer too. Whichever process dies in between, the catalog has
 * one owner, and messages that no cursor has passed are stored or still with their sender.
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { Backoff, Repeated, shared } from "../runtime/index.js";
import { asHawserError, type PeerContext } from "./context.js";
import type { PassedOn } from "./handler-call.js";

/** The receiving side, as far as it takes part. */
interface Channels {
  letGo(connectionKey: number): Promise<boolean>;
  mayOpen(connectionKey: number): void;
}

export class GiveBack {
  /** Channels on their way, with the key of the topic that needs another listener; undefined: they go back within a group. */
  readonly #leaving = new Map<number, number | undefined>();
  /** Questions under way, by channel and topic: many messages may need the same answer. */
  readonly #asked = new Map<string, ReturnType<PeerContext["store"]["heirOf"]>>();
  /** Channels on their way that are closed here. */
  readonly #closed = new Set<number>();
  readonly #backoff = new Backoff({ minMs: storeConstants.storeRetryMinMs, maxMs: storeConstants.storeRetryMaxMs });
  /** Notifications can be missed. */
  readonly #looks = new Repeated(storeConstants.pollMs, () => this.#look());
  #retry: NodeJS.Timeout | undefined;
  /** A call whose answer was lost may land until then, as `performance.now()` has it. */
  #doubtUntil = Number.NEGATIVE_INFINITY;
  #unlisten: (() => void)[] = [];
  #stopped = false;

  readonly #context: Pick<PeerContext, "sender" | "lease" | "logger" | "nameLost"> & {
    readonly store: Pick<PeerContext["store"], "channelsToGiveBack" | "giveBack" | "heirOf" | "on">;
  };
  readonly #channels: Channels;
  readonly #isMember: boolean;

  /** @param isMember the peer is a member of a group */
  constructor(context: PeerContext, channels: Channels, isMember: boolean) {
    this.#context = context;
    this.#channels = channels;
    this.#isMember = isMember;
  }

  start(): void {
    const { store, sender, lease } = this.#context;
    this.#unlisten = [
      // Everything begins again from the catalog, and what was asked under the old epoch is not asked again.
      lease.onRenewed(() => {
        this.#leaving.clear();
        this.#closed.clear();
      }),
    ];
    if (!this.#isMember) return;
    this.#unlisten.push(
      store.on("catalog", ({ clientName, operation }) => {
        if (operation !== "delete" && clientName !== sender.name) this.#looks.soon();
      }),
    );
    this.#looks.soon();
  }

  stop(): void {
    this.#stopped = true;
    this.#looks.stop();
    clearTimeout(this.#retry);
    for (const stop of this.#unlisten) stop();
  }

  /**
   * A message has come for a topic that this peer does not serve: if another listener does, the channel goes to it as soon as
   * nothing of it is under way.
   *
   * @throws HawserError `store_failed` (as a rejection)
   */
  async passOn(connectionKey: number, topicKey: number): Promise<PassedOn> {
    const { store, sender, lease, logger } = this.#context;
    const { epoch } = lease;
    if (this.#leaving.has(connectionKey)) return "goes";
    const place = `${connectionKey} ${topicKey}`;
    let asked = this.#asked.get(place);
    if (asked === undefined) {
      asked = store.heirOf(sender.name, connectionKey, topicKey).finally(() => this.#asked.delete(place));
      this.#asked.set(place, asked);
    }
    const { owned, heir } = await asked;
    if (!owned) return "notOwned";
    if (heir === undefined) return "stays";
    if (this.#stopped || lease.epoch !== epoch || this.#leaving.has(connectionKey)) return "goes";
    this.#leaving.set(connectionKey, topicKey);
    logger.debug(
      { connectionKey, heir },
      "a channel goes to who serves its topic as soon as nothing of it is under way",
    );
    void this.#letGo(connectionKey, epoch);
    return "goes";
  }

  /** Reads which channels are to be given back, and lets go of them. */
  async #look(): Promise<void> {
    const { store, sender, lease, logger } = this.#context;
    try {
      if (this.#stopped || lease.state !== "held" || !lease.isWritable) return;
      const { epoch } = lease;
      const found = await store.channelsToGiveBack(sender.name);
      if (this.#stopped || lease.epoch !== epoch) return;
      for (const connectionKey of found) {
        if (this.#leaving.has(connectionKey)) continue;
        this.#leaving.set(connectionKey, undefined);
        logger.debug({ connectionKey }, "a channel goes back as soon as nothing of it is under way");
        void this.#letGo(connectionKey, epoch);
      }
    } catch (err) {
      logger.debug({ err }, "could not read which channels to give back; trying again");
    }
  }

  async #letGo(connectionKey: number, epoch: number): Promise<void> {
    let isClosed = false;
    try {
      isClosed = await this.#channels.letGo(connectionKey);
    } catch (err) {
      this.#context.logger.debug({ err, connectionKey }, "could not close a channel that is to be given back");
    }
    if (this.#stopped || this.#context.lease.epoch !== epoch) return;
    if (!isClosed) {
      this.#leaving.delete(connectionKey);
      this.#channels.mayOpen(connectionKey);
      return;
    }
    this.#closed.add(connectionKey);
    void this.#give();
  }

  /** One call for all that are closed, one call at a time. */
  readonly #give = shared(async () => {
    const { store, lease, logger, nameLost } = this.#context;
    // Those that are closed in the same moment go together.
    await Promise.resolve();
    while (this.#closed.size > 0 && !this.#stopped) {
      const { epoch } = lease;
      const channels = new Map([...this.#closed].map((key) => [key, this.#leaving.get(key)] as const));
      try {
        const back = await store.giveBack({ name: lease.name, epoch }, channels);
        if (this.#stopped || lease.epoch !== epoch) continue;
        this.#backoff.reset();
        if (back.length > 0) logger.info({ channels: back.length }, "gave channels back that were taken over");
        const isInDoubt = performance.now() < this.#doubtUntil;
        for (const connectionKey of channels.keys()) {
          if (isInDoubt && !back.includes(connectionKey)) continue;
          this.#closed.delete(connectionKey);
          this.#leaving.delete(connectionKey);
          this.#channels.mayOpen(connectionKey);
        }
        if (isInDoubt && this.#closed.size > 0) return this.#giveLater(storeConstants.storeRetryMaxMs);
      } catch (error) {
        if (this.#stopped || lease.epoch !== epoch) continue;
        const { code, outcome } = asHawserError(error);
        if (code === "fenced") return nameLost("giving channels back was refused");
        if (outcome === "unknown") this.#doubtUntil = performance.now() + storeConstants.statementTimeoutMs;
        logger.debug({ err: error }, "could not give channels back; trying again");
        return this.#giveLater(this.#backoff.failed());
      }
    }
  });

  #giveLater(delayMs: number): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#give(), delayMs);
  }
}
