/**
 * The relay of messages that were enqueued for peers. It has no state of its own: each of its turns is one call of
 * `hawser.hand_over_enqueued`, which reads what is new, stores it for the listeners and moves the position, in one transaction.
 * Here is who calls it, and when.
 *
 * **Who.** Any process may. The one that works holds the lease lock of a reserved name, on a session of its own; the others
 * ask now and then whether that is free. A relay that was replaced and does not know it is stopped by its next turn, whose
 * number another one has had.
 *
 * **When.** Awake it looks every few milliseconds. When nothing was found for a while it asks those who enqueue to notify it,
 * and looks less and less often ({@link LookPace}).
 */
import { randomUUID } from "node:crypto";
import { type PeerOutboxFunctions, peerOutboxFunctions } from "../../generated/ts/rows/outbox.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { type DatabaseAddress, isServerError, PostgresSession, type SessionQuery } from "../postgres/index.js";
import { delay, type Logger, LookPace, RareLog } from "../runtime/index.js";
import { catalogChannel, messageChannel } from "./notifications.js";
import { leaseLockKey } from "./transaction.js";

const { peerSender, peerRelayWatchMs, peerPageBytes, peerRetentionMs, pageMessages, queryTimeoutMs } = outboxConstants;
const { slowLookMs, unnotifiedLookMs } = outboxConstants;

/** On which those who enqueue notify a relay that sleeps. */
const enqueuedChannel = "hawser_peer_outbox";

/** SQLSTATE of a turn that another relay has had. */
const uniqueViolation = "23505";

const sql = {
  // Shared, so that those who ask are not in each other's way, and given back within the statement, also where that is in a
  // transaction. Who takes the lock at that moment does not get it, and tries again. A look at pg_locks would cost each peer a
  // time that grows with all.
  isFree: `SELECT CASE WHEN pg_try_advisory_lock_shared(${leaseLockKey}) THEN pg_advisory_unlock_shared(${leaseLockKey}) ELSE false END AS free`,
  lock: `SELECT pg_try_advisory_lock(${leaseLockKey}) AS locked`,
  announce: "SELECT pg_notify(n.channel, n.payload) FROM unnest($1::text[], $2::text[]) AS n (channel, payload)",
} as const;

/** What a relay works with. */
export interface PeerRelayOptions {
  /** Leads to a session, and not through a transaction pooler. */
  readonly address: DatabaseAddress;
  /** For the question whether another relay works. */
  readonly ask: SessionQuery;
  readonly logger: Logger;
}

/** What a turn does besides reading. */
interface Look {
  /** Whether those who enqueue have to notify from now on; undefined: as before. */
  readonly asleep: boolean | undefined;
  /** Later messages are brought in that are due from this moment on, of the clock of Postgres; undefined: none. */
  readonly dueFrom: number | undefined;
}

/** Another relay has the lock. */
class Taken extends Error {}

/** Hands over what is enqueued for peers, while no other process does. */
export class PeerRelay {
  readonly #options: PeerRelayOptions;
  readonly #rareLog: RareLog;
  readonly #stopping = new AbortController();
  #work: Promise<void> | undefined;
  #wake: () => void = () => undefined;
  #handedOver = 0;
  #isWorking = false;

  constructor(options: PeerRelayOptions) {
    this.#options = options;
    this.#rareLog = new RareLog(options.logger, "outbox");
  }

  /** Messages that this process has handed over. */
  get handedOver(): number {
    return this.#handedOver;
  }

  /** It is this process that hands over. */
  get isWorking(): boolean {
    return this.#isWorking;
  }

  start(): void {
    this.#work ??= this.#watch();
  }

  /**
   * Ends, also where Postgres does not answer, unless that is what {@link PeerRelayOptions.ask} waits for. A turn that is under
   * way is committed, or it is not: the next relay goes on behind it.
   */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake();
    await this.#work;
    this.#rareLog.end();
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        const [row] = await this.#options.ask<{ free: boolean }>(sql.isFree, [peerSender]);
        if (row?.free === true && !signal.aborted) await this.#relay();
      } catch (error) {
        if (!signal.aborted && !(error instanceof Taken)) this.#tell("messages for peers cannot be handed over", error);
      }
      // Not all at once.
      await delay(peerRelayWatchMs * (0.5 + Math.random() / 2), signal);
    }
  }

  /** Works until it is stopped or replaced, or Postgres fails. @throws the error of Postgres; Taken */
  async #relay(): Promise<void> {
    const { signal } = this.#stopping;
    let isUp = true;
    let pace: LookPace | undefined;
    const wake = (): void => {
      pace?.notified();
      this.#wake();
    };
    const session = new PostgresSession({
      address: this.#options.address,
      logger: this.#options.logger,
      applicationName: "hawser: outbox for peers",
      channels: [enqueuedChannel, catalogChannel],
      queryTimeoutMs,
      heartbeatMs: storeConstants.leaseBeatMs,
      onConnected: async (query) => {
        const [row] = await query<{ locked: boolean }>(sql.lock, [peerSender]);
        if (row?.locked !== true) throw new Taken("another process hands over what is enqueued for peers");
      },
      onNotification: wake,
      onDown: () => {
        isUp = false;
        wake();
      },
    });
    const end = (): void => void session.close();
    signal.addEventListener("abort", end);
    try {
      await session.open();
      const functions = peerOutboxFunctions({
        query: async ({ text, values }) => ({ rows: await session.query(text, values) }),
      });
      const owner = randomUUID();
      const { canNotify } = await functions.takePeerOutbox({ owner });
      pace = new LookPace(
        { ...outboxConstants, slowLookMs: canNotify ? slowLookMs : unnotifiedLookMs, canBeNotified: canNotify },
        false,
      );
      this.#isWorking = true;
      let laterFrom: string | null = null;
      let rotatesAt = performance.now() + peerRetentionMs / 2;
      while (isUp && !signal.aborted) {
        const begunAt = performance.now();
        const look = { asleep: pace.beginLook(begunAt), dueFrom: pace.dueFrom(begunAt) };
        const found = await this.#turn(functions, owner, laterFrom, look);
        if (found === undefined) return;
        laterFrom = found.lookedTo ?? laterFrom;
        const { handed, hasMore, brought, dueFrom, dueInMs } = found;
        const now = performance.now();
        // A Date has whole milliseconds, rounded down: it is never behind the time.
        const next = dueFrom === null ? undefined : { from: dueFrom.getTime(), inMs: Number(dueInMs) };
        pace.endLook(now, handed + brought > 0);
        pace.endDue(now, look.dueFrom, { brought, next });
        if (hasMore) pace.notified();
        this.#handedOver += handed;
        if (found.connectionKeys.length > 0) this.#announce(session, found.owners, found.connectionKeys);
        if (performance.now() >= rotatesAt) {
          rotatesAt = performance.now() + peerRetentionMs / 2;
          await functions.rotatePeerOutbox({ owner, retentionMs: BigInt(peerRetentionMs / 2) });
        }
        await this.#pause(pace.at - performance.now());
      }
    } finally {
      this.#isWorking = false;
      signal.removeEventListener("abort", end);
      await session.close();
    }
  }

  /** @returns undefined if another relay works */
  async #turn(functions: PeerOutboxFunctions, owner: string, laterFrom: string | null, look: Look) {
    try {
      const { held, ...found } = await functions.handOverEnqueued({
        owner,
        asleep: look.asleep ?? null,
        maxMessages: pageMessages,
        maxBytes: BigInt(peerPageBytes),
        dueFrom: look.dueFrom === undefined ? null : new Date(look.dueFrom),
        laterFrom,
      });
      return held ? found : undefined;
    } catch (error) {
      if (isServerError(error) && error.code === uniqueViolation) return undefined;
      throw error;
    }
  }

  /** Best effort, as for what senders store: a listener also looks by itself. */
  #announce(session: PostgresSession, owners: readonly string[], connectionKeys: readonly number[]): void {
    const known = owners.flatMap((name, nth) => (name === "" ? [] : { name, key: connectionKeys[nth] }));
    if (known.length === 0) return;
    const channels = known.map(({ name }) => messageChannel(name));
    const payloads = known.map(({ key }) => String(key));
    session.query(sql.announce, [channels, payloads]).catch((err) => {
      this.#options.logger.debug(
        { err },
        "could not announce what was handed over; its listeners will look by themselves",
      );
    });
  }

  async #pause(ms: number): Promise<void> {
    if (ms <= 0 || this.#stopping.signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => undefined;
  }

  #tell(what: string, error: unknown): void {
    this.#rareLog.warn(what, error instanceof Error ? error.message : String(error));
  }
}
