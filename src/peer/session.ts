/**
 * One run of a peer, from taking its name to giving it back. A {@link Peer} has at most one.
 *
 *     start: store, migrations ▶ lease ▶ cursors, socket ▶ phone book ▶ running
 *     stop:  no new sends ▶ handlers end ▶ everything unconfirmed stored ▶ cursors committed ▶ Goodbye ▶ phone book ▶ lease
 */
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { PeerError } from "../errors/index.js";
import { type CatalogChange, type Lease, openStore, type Registration, type Store } from "../store/index.js";
import { parseAddress } from "../wire/index.js";
import { type PeerContext, SecretCache } from "./context.js";
import { Inbox } from "./inbox.js";
import type { HandleIncoming } from "./listener-link.js";
import type { CheckedOptions } from "./options.js";
import { Outbox } from "./outbox.js";
import type { StatusEmitter } from "./status.js";

export interface SessionOptions {
  readonly options: CheckedOptions;
  readonly advertise: string | undefined;
  readonly logger: PeerContext["logger"];
  readonly status: StatusEmitter;
  /** Topics subscribed beyond the source topic; lives longer than the session. */
  readonly subscriptions: ReadonlySet<string>;
  /** Topics to forget at the start: unsubscribed while not running. */
  readonly unsubscribed: ReadonlySet<string>;
  /** Undefined for a peer that only sends: what comes for it waits. */
  readonly handle: HandleIncoming | undefined;
  /** The name is lost, and the session has ended by itself. */
  readonly onLost: () => void;
}

export class PeerSession {
  readonly outbox: Outbox;
  private readonly inbox: Inbox;
  boundAddress = "";
  publishedAddress = "";
  private ended = false;
  private lost = false;

  private constructor(
    private readonly session: SessionOptions,
    readonly store: Store,
    readonly lease: Lease,
    secrets: SecretCache,
  ) {
    const { options, status, logger, subscriptions, handle } = session;
    const context: PeerContext = {
      sender: { name: options.name, sourceTopic: options.topic },
      settings: options.settings,
      store,
      lease,
      status,
      logger,
      secrets,
      nameLost: (cause) => this.nameLost(cause),
    };
    this.outbox = new Outbox(context);
    this.inbox = new Inbox({
      context,
      listenAddress: options.listen,
      serves: (topic) => topic === options.topic || subscriptions.has(topic),
      handle,
    });
    lease.onRenewed((epoch) => this.leaseRenewed(epoch));
    lease.onChange((state) => this.leaseChanged(state));
    store.on("catalog", (change) => void this.stayListed(change));
  }

  /**
   * Starts. What was begun is undone when it fails, so that it may be tried again.
   *
   * @throws HawserError `name_in_use`, `bind_failed`, `store_failed`, `schema_too_new`, `plaintext_refused`
   */
  static async start(session: SessionOptions): Promise<PeerSession> {
    const { options } = session;
    const store = await openPeerStore(session);
    let lease: Lease | undefined;
    let started: PeerSession | undefined;
    try {
      await store.migrate();
      const secrets = new SecretCache(store);
      await secrets.refresh();
      lease = await store.takeName(options.name, { waitMs: options.settings.nameWaitMs });
      started = new PeerSession(session, store, lease, secrets);
      started.boundAddress = await started.inbox.start();
      await started.register();
      return started;
    } catch (error) {
      started?.outbox.close();
      await started?.inbox.close();
      await lease?.release({ clean: true });
      await store.close();
      throw error;
    }
  }

  /** Begins to hand messages to the handler: the peer can send now, too. */
  begin(): void {
    this.inbox.begin();
  }

  /** Serves one more topic. */
  async subscribe(topic: string): Promise<void> {
    await this.store.addSubscription(this.lease, topic, this.registration());
  }

  /** Serves a topic no more. */
  async unsubscribe(topic: string): Promise<void> {
    await this.store.removeSubscription(this.lease, topic);
  }

  /** Ends in good order, or as far as that goes until the deadline. */
  async stop(deadlineMs: number): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    const inTime = await within(deadlineMs, Promise.all([this.outbox.stop(), this.inbox.stop()]));
    if (!inTime && !this.lost) {
      this.session.logger.warn(
        { deadlineMs },
        "stopping did not end in time; what is unconfirmed is rejected, and comes again if it was stored or sent",
      );
    }
    await this.inbox.close();
    this.outbox.close();
    if (!this.lost) {
      try {
        await this.store.unregister(this.lease, { keepDurable: true });
      } catch (error) {
        this.session.logger.warn({ err: error }, "could not leave the phone book; senders will find out by dialling");
      }
    }
    await this.lease.release({ clean: inTime && !this.lost });
    await this.store.close();
  }

  private async register(): Promise<void> {
    const { options, advertise, subscriptions, unsubscribed } = this.session;
    this.publishedAddress = published(advertise, this.boundAddress);
    const topics = [
      { topic: options.topic, subscribed: false },
      ...[...subscriptions].map((topic) => ({ topic, subscribed: true })),
    ];
    for (const topic of unsubscribed) await this.store.removeSubscription(this.lease, topic);
    await this.store.registerListener(this.lease, { ...this.registration(), topics });
  }

  /** Somebody cleared the addresses of a topic that this peer serves: it enters itself again. */
  private async stayListed({ topic, clientName, operation }: CatalogChange): Promise<void> {
    const { options, subscriptions, logger } = this.session;
    if (operation !== "delete" || clientName !== options.name || this.publishedAddress === "") return;
    try {
      const listed = (await this.store.listenersOf(topic)).some(({ name }) => name === options.name);
      const serves = topic === options.topic || subscriptions.has(topic);
      if (!listed && serves && !this.ended) await this.register();
    } catch (error) {
      if (!this.ended) logger.warn({ err: error, topic }, "could not enter the phone book again");
    }
  }

  private registration(): Registration {
    const { maxMessageBytes, durable } = this.session.options.settings;
    return { addr: this.publishedAddress, maxMessageBytes, durable };
  }

  private leaseChanged(state: Lease["state"]): void {
    if (this.ended) return;
    if (state === "lost") this.nameLost("the catalog has another epoch");
    else if (state === "held") {
      this.outbox.setMayStore(true);
      this.inbox.halt(false);
    } else if (state === "suspended") {
      this.outbox.setMayStore(false);
      this.inbox.halt(true);
    }
  }

  /** Another database server: what was under way counts no more, and everything begins again from what it has. */
  private leaseRenewed(epoch: number): void {
    if (this.ended) return;
    this.outbox.rebase(epoch);
    void this.beginAgain(epoch);
  }

  private async beginAgain(epoch: number): Promise<void> {
    try {
      await this.inbox.reopen();
      await this.register();
    } catch (error) {
      if (this.ended || this.lease.epoch !== epoch) return;
      this.session.logger.warn({ err: error }, "could not begin again with another database server; trying again");
      setTimeout(() => void this.beginAgain(epoch), storeConstants.pollMs);
    }
  }

  private nameLost(cause: string): void {
    if (this.lost) return;
    this.lost = true;
    this.outbox.fence();
    const { options, status, onLost, logger } = this.session;
    const message = `another process has taken the name "${options.name}": ${cause}`;
    logger.error({ name: options.name }, message);
    status.tell({ kind: "fenced", message });
    status.tell({ kind: "name_lost", message, error: new PeerError("name_lost", message) });
    void this.stop(0).finally(onLost);
  }
}

/** Opens the store of a peer. */
export function openPeerStore({ options, logger }: Pick<SessionOptions, "options" | "logger">): Promise<Store> {
  return openStore({
    databaseUrl: options.databaseUrl,
    sessionUrl: options.sessionUrl,
    poolSize: options.settings.poolSize,
    logger,
  });
}

/** The address to publish: port 0 of the advertised one becomes the bound port. */
function published(advertise: string | undefined, bound: string): string {
  if (advertise === undefined) return bound;
  if (parseAddress(advertise).port !== 0) return advertise;
  return advertise.replace(/:0$/, `:${parseAddress(bound).port}`);
}

/** Whether the work ended within the time; its failure counts as not. */
async function within(deadlineMs: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), deadlineMs);
  });
  try {
    return await Promise.race([
      work.then(
        () => true,
        () => false,
      ),
      late,
    ]);
  } finally {
    clearTimeout(timer);
  }
}
