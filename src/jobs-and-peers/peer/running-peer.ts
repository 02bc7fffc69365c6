/**
 * Run of a peer, from taking its name to releasing it. A {@link Peer} has at most one run at a time.
 *
 *     start: store, migrations ▶ lease ▶ cursors, socket ▶ directory ▶ running
 *     stop:  no new sends ▶ handlers end ▶ unconfirmed messages stored ▶ cursors committed ▶ Goodbye ▶ directory ▶ lease
 */

import { type PeerSettings, storeConstants, type TuningSettings } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { postgresBackoff } from "../../foundation/postgres/index.js";
import { Backoff, shared, version } from "../../foundation/runtime/index.js";
import type { TlsCredentials } from "../../foundation/tls/index.js";
import type { AbsentListener } from "../../operating/operate/index.js";
import { senderDefaults } from "../channel/index.js";
import { defaultTakeoverMs, type Membership } from "../handlers/handling-settings.js";
import type { StatusReporter } from "../handlers/status.js";
import type { TopicHandlers } from "../handlers/topic-handlers.js";
import { openStore, type Store } from "../peer-store/index.js";
import { insertBytes, insertRows, type Lease, type Registration, type ServedTopic } from "../store/index.js";
import { checkTlsRuntime } from "../transport/index.js";
import { parseAddress } from "../wire/index.js";
import type { PeerCounters } from "../worker/counters.js";
import { DeadLetterExpiry } from "../worker/dead-letter-expiry.js";
import { endHandlers, endOf, endsWithin } from "../worker/ending.js";
import type { CountedOfPeer } from "../worker/monitored-peer.js";
import { type PeerContext, type PeerLimits, SecretCache } from "./core/context.js";
import type { CheckedOptions } from "./core/peer-options.js";
import { OrphanWatch } from "./membership/orphan-watch.js";
import { Inbox } from "./receiving/inbox.js";
import { Sending } from "./sending/sending.js";

export interface RunOptions {
  readonly options: CheckedOptions;
  readonly logger: PeerContext["logger"];
  readonly status: StatusReporter;
  readonly counters: PeerCounters;
  /** Topics to unregister at the start, because their handlers were stopped while the peer was not running. */
  readonly unsubscribed: ReadonlySet<string>;
  /** Handlers of the user, which stay set across runs. */
  readonly handlers: TopicHandlers;
  /** Called when the name is lost and the running peer stops by itself. */
  readonly onLost: (ending: Promise<void>) => void;
  /** Name of the runtime. Default: that of this process; tests give another. */
  readonly runtime?: string | undefined;
}

export class RunningPeer {
  readonly sending: Sending;
  readonly #inbox: Inbox;
  boundAddress = "";
  publishedAddress = "";
  #stopping: Promise<void> | undefined;
  #lost = false;
  #over = false;
  /**
   * True after a move to another database server, until keys and cursors are read there; nothing is stored until then.
   */
  #isResuming = false;
  #resumeTimer: NodeJS.Timeout | undefined;
  readonly #resumeBackoff = new Backoff(postgresBackoff);
  readonly #unlisten: (() => void)[];
  /** Served topics that may be missing in the directory. */
  readonly #possiblyUnlisted = new Set<string>();
  /** True if the catalog may have the end of an earlier TLS certificate. */
  #hasNewCertificate = false;
  #certificateTimer: NodeJS.Timeout | undefined;
  readonly #certificateBackoff = new Backoff(postgresBackoff);
  #stopDue: (() => Promise<void>) | undefined;
  /** Deletion of expired dead letters, and release of what waits for absent listeners. */
  readonly #backgroundTasks: { start(): void; stop(): void }[];

  readonly #run: RunOptions;
  readonly membership: Membership;
  readonly store: Store;
  readonly lease: Lease;

  private constructor(run: RunOptions, store: Store, lease: Lease, secrets: SecretCache) {
    this.#run = run;
    this.store = store;
    this.lease = lease;
    const { options, status, counters, logger, handlers } = run;
    const context: PeerContext = {
      sender: { name: options.name, sourceTopic: options.topic },
      settings: limitsOf(options.settings, options.tuning),
      membership: handlers.membership,
      store,
      workerName: options.name,
      idleBeatMs: undefined,
      lease,
      status,
      counters,
      logger,
      secrets,
      tls: options.tls,
      checkEpoch: (cause) => this.#checkEpoch(cause),
      nameLost: (cause) => this.#nameLost(cause),
    };
    this.membership = context.membership;
    this.sending = new Sending(context);
    this.#inbox = new Inbox(context, handlers);
    this.#backgroundTasks = [new DeadLetterExpiry(context), ...this.#takeovers(context)];
    this.#unlisten = [
      secrets.follow(logger),
      options.tls?.subscribe({
        onReloaded: (certificate) => this.#certificateChanged(certificate),
        onReloadFailed: (error) => {
          const message = `the changed TLS files cannot be used; the previous certificates stay in use: ${error.message}`;
          logger.warn({ err: error }, message);
          status.report({ kind: "tls_reload_failed", message, error });
        },
      }) ?? (() => undefined),
      lease.onRenewed((epoch) => this.#leaseRenewed(epoch)),
      lease.onChange((state) => this.#leaseChanged(state)),
      store.on("catalog", ({ topic, listenerName, operation }) => {
        if (listenerName !== options.name) return;
        if (operation === "delete") this.#recheckListed([topic]);
        // The takeover of this peer's channels by another peer also updates the directory rows of this peer.
        if (operation !== "insert") void this.#checkHandedOver();
      }),
      store.on("session", (state) => {
        if (state !== "up") return;
        counters.postgresReconnects += 1;
        void this.#publishCertificate();
        this.#recheckListed(handlers.topics);
      }),
    ];
  }

  /** Creates the takeover of channels of absent listeners: those of the same group, or all of them outside of a group. */
  #takeovers(context: PeerContext): OrphanWatch[] {
    const { group, takeoverMs } = this.membership;
    const { handlers } = this.#run;
    const afterMs = takeoverMs ?? (group === undefined ? undefined : defaultTakeoverMs);
    if (afterMs === undefined) return [];
    const watched = {
      afterMs,
      // A peer without a handler could not handle what it releases.
      isWatched: (listener: AbsentListener) => !handlers.isEmpty && (group === undefined || listener.group === group),
      standInFor: (names: readonly string[]) => this.#inbox.standInFor(names),
    };
    return [new OrphanWatch(context, watched, () => handlers.topics)];
  }

  /** True if another process owns the name. */
  get isLost(): boolean {
    return this.#lost;
  }

  get #ended(): boolean {
    return this.#stopping !== undefined;
  }

  /**
   * Starts a run. A failed start undoes its completed steps, so that it can be repeated.
   *
   * @throws HawserError `name_in_use`, `bind_failed`, `store_failed`, `schema_too_new`, `plaintext_refused`,
   * `tls_unsupported`
   */
  static async start(run: RunOptions, signal: AbortSignal): Promise<RunningPeer> {
    const { options } = run;
    if (options.tls !== undefined) checkTlsRuntime(run.runtime);
    const store = await openPeerStore(run);
    let lease: Lease | undefined;
    let started: RunningPeer | undefined;
    try {
      await store.migrate();
      const secrets = new SecretCache(store);
      await secrets.refresh();
      lease = await store.takeName(options.name, { waitMs: options.settings.nameWaitMs, signal });
      signal.throwIfAborted();
      started = new RunningPeer(run, store, lease, secrets);
      store.fitPool(options, run.handlers.transactionsAtOnce(options.settings.concurrency));
      started.boundAddress = await started.#inbox.start(options.listen);
      await started.#register();
      for (const topic of run.handlers.topics) started.#watch(topic);
      signal.throwIfAborted();
      return started;
    } catch (error) {
      if (started !== undefined) {
        started.#detach();
        void started.sending.close();
        await started.#inbox.close();
      }
      // No message was handled, so the clean state of the name does not change.
      await lease?.release({ clean: lease.wasClean });
      await store.close();
      throw error;
    }
  }

  /** Starts to call handlers, and starts the background tasks. */
  startHandling(): void {
    this.#inbox.startHandling();
    for (const task of this.#backgroundTasks) task.start();
    this.#stopDue = this.store.startDue();
  }

  /** Reasons why the peer cannot send and handle messages at the moment. */
  get problems(): string[] {
    const isEnded = this.#run.options.pool?.ending === true;
    const problem = isEnded ? "the given pool was ended; stop the peer before the pool is ended" : this.store.problem;
    const problems = problem === undefined ? [] : [problem];
    if (this.lease.state !== "held") problems.push(`the lease of the name "${this.lease.name}" is suspended`);
    if (this.#isResuming) problems.push("the channels are being read from another database server");
    return problems;
  }

  /** Counts the messages that concern the peer; one of all peers and workers also counts what waits in the database. */
  async countStored(): Promise<CountedOfPeer> {
    const { store, lease } = this;
    return {
      ...(await store.storedCountersOf(lease.name)),
      shared: this.#inbox.isFirst() ? await store.countShared() : undefined,
    };
  }

  get certificateEndsAt(): number | undefined {
    return this.#run.options.tls?.current.validUntil;
  }

  /** Current numbers of the peer, for metrics. */
  get numbers(): Inbox["numbers"] & { readonly listeners: number } {
    return { ...this.#inbox.numbers, listeners: this.sending.links.connected };
  }

  /** Updates the inbox after a handler was set, replaced or removed. */
  handlersChanged(): void {
    const { options, handlers } = this.#run;
    this.store.fitPool(options, handlers.transactionsAtOnce(options.settings.concurrency));
    this.#inbox.handlersChanged();
  }

  /** Registers a topic in the directory, or updates its durability. */
  async subscribe(topic: string): Promise<void> {
    const { handlers } = this.#run;
    await this.#inbox.readPause(topic);
    await this.store.addSubscription(this.lease, this.#served(topic), this.#registration(handlers.isDurable(topic)));
    this.#watch(topic);
  }

  /**
   * Watches the other listeners of a topic for status events, except for the peer's own topic, which thousands of peers
   * may have.
   */
  #watch(topic: string): void {
    if (topic !== this.#run.options.topic) this.sending.topics.watch(topic);
  }

  /** Unregisters a topic from the directory. */
  async unsubscribe(topic: string): Promise<void> {
    this.sending.topics.unwatch(topic);
    this.#inbox.handlersChanged();
    await this.store.removeSubscriptions(this.lease, [topic]);
  }

  /**
   * Graceful shutdown: drains handlers, stores unconfirmed messages, releases the name. The last part of `deadlineMs`
   * is reserved for the release.
   */
  stop(deadlineMs: number): Promise<void> {
    this.#stopping ??= this.#end(deadlineMs);
    return this.#stopping;
  }

  async #end(deadlineMs: number): Promise<void> {
    const until = endOf(deadlineMs);
    const { logger } = this.#run;
    for (const task of this.#backgroundTasks) task.stop();
    const dueEnded = this.#stopDue?.() ?? Promise.resolve();
    const reason = new HawserError("aborted", `the peer "${this.#run.options.name}" stops`);
    await endHandlers(this.#finishWork(reason), deadlineMs, until, {
      warn: () => {
        if (!this.#lost) {
          const what = "unconfirmed sends are rejected, and unfinished messages are delivered again";
          logger.warn({ deadlineMs }, `the stop has reached its time limit; ${what}`);
        }
      },
      abort: () =>
        this.#inbox.abortHandlers(new HawserError("aborted", `the peer "${this.#run.options.name}" has stopped`)),
      cutOff: () => this.#inbox.cutOff(),
    });
    await this.#inbox.close();
    const written = this.sending.close();
    // If Postgres hangs, the name becomes free when the connection has ended.
    const releasing = written.then(() => this.#releaseName());
    const isReleased = await endsWithin(until - performance.now(), releasing);
    if (!isReleased)
      logger.warn({}, "could not release the name in time; it becomes free when the database connection has ended");
    this.#detach();
    await endsWithin(until - performance.now(), dueEnded);
    // Statements that Postgres does not answer end on their own, even after the deadline.
    await endsWithin(until - performance.now(), this.store.close());
  }

  /** Handlers end first, so that the messages which they still send are stored with the others. */
  async #finishWork(reason: HawserError): Promise<void> {
    await this.#inbox.stop(reason);
    await this.sending.stop();
  }

  async #releaseName(): Promise<void> {
    if (!this.#lost) {
      try {
        await this.store.unregister(this.lease, { keepDurable: true });
      } catch (error) {
        this.#run.logger.warn({ err: error }, "could not leave the directory; senders will notice by failed dials");
      }
    }
    await this.lease.release({ clean: !this.#lost });
  }

  /** Removes all event listeners and timers. */
  #detach(): void {
    this.#over = true;
    clearTimeout(this.#resumeTimer);
    clearTimeout(this.#certificateTimer);
    for (const stop of this.#unlisten) stop();
    for (const task of this.#backgroundTasks) task.stop();
  }

  async #register(): Promise<void> {
    const { options, unsubscribed, handlers } = this.#run;
    this.publishedAddress = published(options.advertise, this.boundAddress);
    await this.store.removeSubscriptions(this.lease, [...unsubscribed]);
    const topics = this.#servedTopics();
    const durable = topics.filter(({ topic }) => handlers.isDurable(topic));
    const isMixed = durable.length > 0 && durable.length < topics.length;
    await this.store.registerListener(this.lease, { ...this.#registration(!isMixed && durable.length > 0), topics });
    for (const topic of isMixed ? durable : []) {
      await this.store.addSubscription(this.lease, topic, this.#registration(true));
    }
  }

  /** Marks served topics whose directory entry may have been deleted, and checks them. */
  #recheckListed(topics: readonly string[]): void {
    // Any login can send notifications for any topic.
    for (const topic of topics) if (this.#run.handlers.serves(topic)) this.#possiblyUnlisted.add(topic);
    void this.#checkListed();
  }

  readonly #checkListed = shared(async () => {
    const { options, logger } = this.#run;
    const topics = [...this.#possiblyUnlisted];
    this.#possiblyUnlisted.clear();
    if (this.#ended || this.publishedAddress === "") return;
    try {
      const sender = { name: options.name, sourceTopic: options.topic };
      const found = await Promise.all(topics.map((topic) => this.store.listenersAndRoutes(sender, topic)));
      const served = new Set(this.#servedTopics().map(({ topic }) => topic));
      let isMissing = false;
      for (const [index, topic] of topics.entries()) {
        const listeners = found[index]?.listeners ?? [];
        if (!served.has(topic) || listeners.some(({ name }) => name === options.name)) continue;
        // Another peer that publishes the same address has overwritten the row: both would overwrite each other
        // forever.
        const other = listeners.find(({ addr }) => addr === this.publishedAddress);
        if (other === undefined) isMissing = true;
        else
          logger.error({ topic, address: other.addr, peer: other.name }, "another peer publishes this peer's address");
      }
      if (!isMissing || this.#ended) return;
      await this.#register();
      // The peer may have unregistered while the query was running.
      if (this.#ended) await this.store.unregister(this.lease, { keepDurable: true });
    } catch (error) {
      if (!this.#ended) logger.warn({ err: error, topics }, "could not register in the directory again");
    }
  });

  #certificateChanged({ validUntil }: TlsCredentials["current"]): void {
    this.#run.logger.info({ validUntil: new Date(validUntil) }, "reloaded the TLS certificate, key and authorities");
    this.#hasNewCertificate = true;
    void this.#publishCertificate();
  }

  /** Writes the end of a renewed TLS certificate into the catalog; after a failure, again later, and with the next session. */
  readonly #publishCertificate = shared(async () => {
    // Without an address, the registration is still to come.
    if (!this.#hasNewCertificate || this.#ended || this.#over || this.publishedAddress === "") return;
    this.#hasNewCertificate = false;
    clearTimeout(this.#certificateTimer);
    try {
      await this.store.updateListener(this.lease, this.#registration(false));
      this.#certificateBackoff.reset();
    } catch (error) {
      this.#hasNewCertificate = true;
      if (this.#ended || this.#over) return;
      if (this.#certificateBackoff.failures === 0)
        this.#run.logger.warn({ err: error }, "could not write when the renewed TLS certificate ends; retrying");
      this.#certificateTimer = setTimeout(() => void this.#publishCertificate(), this.#certificateBackoff.failed());
    }
  });

  #servedTopics(): ServedTopic[] {
    return this.#run.handlers.topics.map((topic) => this.#served(topic));
  }

  #served(topic: string): ServedTopic {
    return { topic, subscribed: topic !== this.#run.options.topic };
  }

  readonly #checkHandedOver = shared(() => this.#checkEpoch("what was stored for it was released"));

  /** Compares the epoch with the catalog, which alone can prove that the name is lost. */
  async #checkEpoch(cause: string): Promise<void> {
    const { store, lease } = this;
    try {
      const epoch = (await store.peerEpoch(lease.name)) ?? 0;
      // The name may have been lost or taken again during the query. The comparison is "greater" because a server that
      // was left behind by a failover can still answer with an older epoch.
      if (lease.state === "held" && epoch > lease.epoch) this.#nameLost(cause);
    } catch (err) {
      this.#run.logger.debug({ err }, "could not compare the epoch with the catalog; the next write checks it");
    }
  }

  #registration(durable: boolean): Registration {
    const { settings } = this.#run.options;
    const endsAt = this.certificateEndsAt;
    return {
      addr: this.publishedAddress,
      maxMessageBytes: settings.maxMessageBytes,
      durable,
      group: this.membership.group,
      version,
      // The end of an odd certificate cannot be read.
      certificateEndsAt: endsAt === undefined || Number.isNaN(endsAt) ? undefined : new Date(endsAt),
    };
  }

  /** Follows the lease, also during a stop: unconfirmed messages can be stored when the lease is held again. */
  #leaseChanged(state: Lease["state"]): void {
    if (state === "lost") this.#nameLost("the catalog has another epoch");
    else if (state === "held") {
      if (!this.#isResuming) this.sending.links.setMayStore(true);
      if (!this.#ended) this.#inbox.halt(false);
    } else if (state === "suspended") {
      this.sending.links.setMayStore(false);
      this.#inbox.halt(true);
    }
  }

  /** Resets both sides after a move to another database server, and continues from its state. */
  #leaseRenewed(epoch: number): void {
    this.#isResuming = true;
    // The inbox resets before the lease is held again, because handlers and commits resume with the lease.
    this.#inbox.reset();
    this.sending.links.restartNumbering(epoch);
    this.#resumeBackoff.reset();
    void this.#resume(epoch);
  }

  async #resume(epoch: number): Promise<void> {
    if (this.lease.epoch !== epoch) return;
    try {
      // Ids are looked up first: in a restored database the old ones may identify other channels.
      await this.sending.rekey();
      await this.#inbox.reopen();
      if (!this.#ended) await this.#register();
      this.#isResuming = false;
      this.sending.links.setMayStore(this.lease.state === "held");
    } catch (error) {
      if (this.#over) return;
      this.#run.logger.debug({ err: error }, "could not continue with another database server; retrying");
      this.#resumeTimer = setTimeout(() => void this.#resume(epoch), this.#resumeBackoff.failed());
    }
  }

  #nameLost(cause: string): void {
    // Late events of an ended run do not concern the current one.
    if (this.#lost || this.#over) return;
    this.#lost = true;
    this.sending.fence();
    const { options, status, onLost, logger } = this.#run;
    const message = `the name "${options.name}" was taken by another process, or what was stored for it was released: ${cause}`;
    logger.error({ peer: options.name }, message);
    status.report({ kind: "fenced", message });
    status.report({ kind: "name_lost", message, error: new HawserError("name_lost", message) });
    const ending = this.stop(0).catch((err) => logger.error({ err }, "could not stop after the name was lost"));
    onLost(ending);
  }
}

/** Opens the store of a peer. */
export function openPeerStore({ options, logger }: Pick<RunOptions, "options" | "logger">): Promise<Store> {
  const { databaseUrl, pool, sessionUrl, settings } = options;
  return openStore({ databaseUrl, pool, sessionUrl, poolSize: settings.poolSize, logger });
}

/** Limits of the parts of a running peer. */
export function limitsOf(settings: PeerSettings, tuning: TuningSettings): PeerLimits {
  const { minMs: storeRetryMinMs, maxMs: storeRetryMaxMs } = postgresBackoff;
  const { shortBacklogRows } = storeConstants;
  return {
    ...senderDefaults,
    ...{ insertRows, insertBytes, shortBacklogRows, storeRetryMinMs, storeRetryMaxMs },
    ...settings,
    ...tuning,
  };
}

/** Address to publish: port 0 of the advertised address is replaced by the bound port. */
function published(advertise: string | undefined, bound: string): string {
  if (advertise === undefined) return bound;
  if (parseAddress(advertise).port !== 0) return advertise;
  return advertise.replace(/:0$/, `:${parseAddress(bound).port}`);
}
