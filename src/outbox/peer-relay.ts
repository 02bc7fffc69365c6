/**
 * Relay of messages for peers. The database keeps its position: each turn is one SQL call that reads new messages,
 * stores them for the listeners and moves the position, in one transaction. This file decides which process makes these
 * calls, and when.
 *
 * **Which process.** Any process may. The active process advances a sequence of Postgres with its turns. The others
 * check the sequence when the active process may be overdue, and when it announces its end. A relay that was replaced
 * without noticing is stopped by its next turn, because another relay has already used the turn's number.
 *
 * **When.** {@link PollPace} sets the times of the turns.
 *
 * The process also enqueues the due occurrences of schedules (`schedules.ts`).
 */

import { type OutboxFunctions, outboxFunctions, schedulerFunctions } from "../../generated/ts/rows/outbox.js";
import { outboxConstants, scheduleConstants } from "../../generated/ts/settings/outbox.js";
import type { ClientSource, PostgresSession, SessionQuery } from "../postgres/index.js";
import { delay, type Logger, PollPace, paceDefaults, RareLog } from "../runtime/index.js";
import { catalogChannel, messageChannel } from "../store/index.js";
import type { HandedOver, HandOver, TakenOutbox } from "./outbox-table.js";
import { OutboxRunner, type RelayMachine } from "./runner.js";
import { retryMs, runDueSchedules, SchedulePace } from "./schedules.js";

const { peerBeatMs, pageMessages, slowPollMs, waitingChannel } = outboxConstants;
/** Minimum time that messages for peers stay in the outbox after they were handed over. */
const peerRetentionMs = 60_000;
/** Maximum payload bytes that a relay for peers hands over at once; a single message always fits. */
const peerPageBytes = 8 * 1024 * 1024;

const problem = "could not move messages from the outbox to the stored messages of peers";

const announceSql =
  "SELECT pg_notify(n.channel, n.payload) FROM unnest($1::text[], $2::text[]) AS n (channel, payload)";

/** Step of the relay: a turn, or a poll of due schedules. */
type PeerStep = HandOver | "schedules";

/** Collaborators of {@link PeerRelay}. */
export interface PeerRelayOptions {
  /** Source of a direct connection, without a transaction pooler. */
  readonly address: ClientSource;
  /** Runs the query that checks for another relay. */
  readonly ask: SessionQuery;
  readonly logger: Logger;
}

/** Moves messages enqueued for peers to the stored messages, while no other process does. */
export class PeerRelay {
  readonly #runner: OutboxRunner<PeerStep, PeerTurns>;
  readonly #check: OutboxFunctions["peerRelayIsFree"];
  readonly #logger: Logger;
  readonly #rareLog: RareLog;
  readonly #stopping = new AbortController();
  /** Aborts the pause before the next check. */
  #pause = new AbortController();
  #work: Promise<void> | undefined;

  constructor({ address, ask, logger }: PeerRelayOptions) {
    this.#logger = logger;
    const rareLog = new RareLog(logger, "outbox");
    this.#rareLog = rareLog;
    const functions = outboxFunctions({ query: async ({ text, values }) => ({ rows: await ask(text, values) }) });
    this.#check = () => functions.peerRelayIsFree();
    this.#runner = new OutboxRunner<PeerStep, PeerTurns>(
      {
        kind: "peer",
        applicationName: "hawser: outbox for peers",
        channels: ["hawser_peer_outbox", catalogChannel, scheduleConstants.channel],
        retentionMs: peerRetentionMs / 2,
        problem,
        start: (taken) => new PeerTurns(taken),
        notified: (turns, channel) => {
          if (channel === scheduleConstants.channel) turns.schedules.changed();
          else {
            if (channel === catalogChannel) turns.adopt();
            turns.wake();
          }
        },
        run: (turns, step, { table, session, owner }) => {
          if (step === "schedules") return this.#runSchedules(turns, session);
          return this.#runner.turn(
            turns,
            () => table.handOver(owner, step),
            (outcome) => {
              turns.complete(step, outcome, performance.now());
              if (outcome !== undefined) this.#announce(session, outcome);
            },
          );
        },
        canFinish: () => true,
      },
      { address, logger, rareLog, retakes: false },
    );
  }

  /** True while this process relays; at most one process of a database does. */
  get isRelaying(): boolean {
    return this.#runner.machine !== undefined;
  }

  start(): void {
    this.#work ??= this.#watch();
  }

  /**
   * Stops, even if Postgres does not answer, unless {@link PeerRelayOptions.ask} is pending. The current turn may
   * commit or not; the next relay continues after it if it has.
   *
   * @param limitMs maximum duration of the current turn
   */
  async stop(limitMs: number = slowPollMs): Promise<void> {
    this.#stopping.abort();
    this.checkSoon();
    await this.#runner.stop(limitMs);
    await this.#work;
    this.#rareLog.end();
  }

  /**
   * Checks for another relay within half of `slowPollMs`. Called when a relay has ended; any login can send that
   * notification.
   */
  checkSoon(): void {
    this.#pause.abort();
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      this.#pause = new AbortController();
      let inMs: number = slowPollMs;
      try {
        if (!this.#runner.isLeading) {
          const { isFree, askInMs } = await this.#check();
          if (!isFree) inMs = askInMs;
          else if (!signal.aborted) this.#runner.lead();
        }
      } catch (error) {
        if (!signal.aborted) this.#runner.warn(problem, error);
      }
      if (!signal.aborted) await delay(inMs, this.#pause.signal);
      // The random delay spreads the checks: thousands of processes are notified of an end at once, and any login can
      // notify.
      await delay((Math.random() * slowPollMs) / 2, signal);
    }
  }

  async #runSchedules(turns: PeerTurns, session: PostgresSession): Promise<void> {
    const functions = schedulerFunctions({
      query: async ({ text, values }) => ({ rows: await session.query(text, values) }),
    });
    let inMs: number = retryMs;
    try {
      inMs = await runDueSchedules(functions, () => turns.isEnding);
    } catch (error) {
      this.#runner.warn("could not run the schedules", error);
    }
    turns.schedules.endPoll(performance.now(), inMs);
    this.#runner.pump();
  }

  /** Best effort, as for messages that senders store: listeners also poll. */
  #announce(session: PostgresSession, { owners, channelIds, waiting }: HandedOver): void {
    const known = (owners ?? []).flatMap((name, nth) => (name === "" ? [] : { name, key: channelIds![nth] }));
    const topics = waiting ?? [];
    if (known.length + topics.length === 0) return;
    const channels = [...known.map(({ name }) => messageChannel(name)), ...topics.map(() => waitingChannel)];
    const payloads = [...known.map(({ key }) => String(key)), ...topics];
    session.query(announceSql, [channels, payloads]).catch((err) => {
      this.#logger.debug({ err }, "could not announce messages moved from the outbox; their listeners will poll");
    });
  }
}

/** Timing of the turns and schedule polls of a peer relay. */
class PeerTurns implements RelayMachine<PeerStep> {
  readonly schedules: SchedulePace;
  readonly #pace: PollPace;
  #laterFrom: string | undefined;
  #isPending = false;
  isEnding = false;
  #adoptsAt = Number.NEGATIVE_INFINITY;
  isDeposed = false;

  constructor({ canNotify }: TakenOutbox) {
    this.#pace = new PollPace({ ...paceDefaults, canBeNotified: canNotify, idlePollMs: peerBeatMs }, false);
    this.schedules = new SchedulePace(canNotify ? undefined : slowPollMs);
  }

  get isIdle(): boolean {
    return !this.#isPending && !this.schedules.isPending;
  }

  get readyAt(): number {
    if (this.isEnding || this.isDeposed) return Number.POSITIVE_INFINITY;
    return Math.min(this.#turnAt, this.schedules.at);
  }

  get #turnAt(): number {
    return this.#isPending ? Number.POSITIVE_INFINITY : this.#pace.at;
  }

  wake(): void {
    this.#pace.notified();
  }

  /** Called when the directory has changed. */
  adopt(): void {
    this.#adoptsAt = Number.NEGATIVE_INFINITY;
  }

  next(now: number): PeerStep | undefined {
    if (this.readyAt > now) return undefined;
    if (this.#turnAt > now) {
      this.schedules.startPoll();
      return "schedules";
    }
    this.#isPending = true;
    const adopts = now >= this.#adoptsAt;
    if (adopts) this.#adoptsAt = now + slowPollMs;
    return {
      asleep: this.#pace.startPoll(now),
      dueFrom: this.#pace.dueFrom(now),
      laterFrom: this.#laterFrom,
      maxMessages: pageMessages,
      maxBytes: peerPageBytes,
      adopts,
    };
  }

  /**
   * Completes a turn. @param outcome undefined if another relay has taken over or Postgres did not answer: the relay
   * must start again
   */
  complete(step: HandOver, outcome: HandedOver | undefined, now: number): void {
    this.#isPending = false;
    if (outcome === undefined) {
      this.isDeposed = true;
      return;
    }
    const { handed, hasMore, due, doneTo } = outcome;
    this.#laterFrom = doneTo!;
    this.#pace.endPoll(now, handed! + due.moved, doneTo!);
    this.#pace.endDue(now, step.dueFrom, due);
    if (hasMore) this.#pace.notified();
  }
}
