/**
 * The relay of messages for peers. Its position is the database's: each turn is one call that reads what is new, stores it for
 * the listeners and moves the position, in one transaction. Here is which process calls it, and when.
 *
 * **Which.** Any process may. The one that works shows in a sequence that it is at work; the others ask when it may be late, and
 * when it says that it has ended. A relay that was replaced and does not know it is stopped by its next turn, whose number another one has had.
 *
 * **When.** As {@link LookPace} says.
 *
 * The process also enqueues what is due of the schedules, as `schedules.ts` says.
 */

import { type OutboxFunctions, outboxFunctions, schedulerFunctions } from "../../generated/ts/rows/outbox.js";
import { outboxConstants, scheduleConstants } from "../../generated/ts/settings/outbox.js";
import type { DatabaseAddress, PostgresSession, SessionQuery } from "../postgres/index.js";
import { delay, type Logger, LookPace, RareLog } from "../runtime/index.js";
import { catalogChannel, messageChannel } from "../store/index.js";
import type { HandedOver, HandOver, TakenOutbox } from "./outbox-table.js";
import { OutboxRunner, type RelayMachine } from "./runner.js";
import { runDueSchedules, SchedulePace } from "./schedules.js";

const { peerBeatMs, peerPageBytes, peerRetentionMs, pageMessages, slowLookMs, waitingChannel } = outboxConstants;

const problem = "messages for peers cannot be handed over";

const announceSql =
  "SELECT pg_notify(n.channel, n.payload) FROM unnest($1::text[], $2::text[]) AS n (channel, payload)";

/** A step of the relay: a turn, or a look for schedules that are due. */
type PeerStep = HandOver | "schedules";

/** Collaborators of {@link PeerRelay}. */
export interface PeerRelayOptions {
  /** Leads to a session, and not through a transaction pooler. */
  readonly address: DatabaseAddress;
  /** For the question whether another relay works. */
  readonly ask: SessionQuery;
  readonly logger: Logger;
}

/** Hands over what is enqueued for peers, while no other process does. */
export class PeerRelay {
  readonly #runner: OutboxRunner<PeerStep, PeerTurns>;
  readonly #ask: OutboxFunctions["peerRelayIsFree"];
  readonly #logger: Logger;
  readonly #rareLog: RareLog;
  readonly #stopping = new AbortController();
  /** Ends the pause before the next question. */
  #pause = new AbortController();
  #work: Promise<void> | undefined;

  constructor({ address, ask, logger }: PeerRelayOptions) {
    this.#logger = logger;
    const rareLog = new RareLog(logger, "outbox");
    this.#rareLog = rareLog;
    const functions = outboxFunctions({ query: async ({ text, values }) => ({ rows: await ask(text, values) }) });
    this.#ask = () => functions.peerRelayIsFree();
    this.#runner = new OutboxRunner<PeerStep, PeerTurns>(
      {
        kind: "peer",
        applicationName: "hawser: outbox for peers",
        channels: ["hawser_peer_outbox", catalogChannel, scheduleConstants.channel],
        retentionMs: peerRetentionMs / 2,
        problem,
        begin: (taken) => new PeerTurns(taken),
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
              turns.settle(step, outcome, performance.now());
              if (outcome !== undefined) this.#announce(session, outcome);
            },
          );
        },
        canFinish: () => true,
      },
      { address, logger, rareLog, retakes: false },
    );
  }

  start(): void {
    this.#work ??= this.#watch();
  }

  /**
   * Ends, also where Postgres does not answer, unless that is what {@link PeerRelayOptions.ask} waits for. A turn that is under
   * way is committed, or it is not: the next relay goes on behind it.
   *
   * @param limitMs how long the turn under way may take
   */
  async stop(limitMs: number = slowLookMs): Promise<void> {
    this.#stopping.abort();
    this.askSoon();
    await this.#runner.stop(limitMs);
    await this.#work;
    this.#rareLog.end();
  }

  /** Asks within half of `slowLookMs` whether another relay works: one has ended, or a login notifies so. */
  askSoon(): void {
    this.#pause.abort();
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      this.#pause = new AbortController();
      let inMs: number = slowLookMs;
      try {
        if (!this.#runner.isLeading) {
          const { isFree, askInMs } = await this.#ask();
          if (!isFree) inMs = askInMs;
          else if (!signal.aborted) this.#runner.lead();
        }
      } catch (error) {
        if (!signal.aborted) this.#runner.tell(problem, error);
      }
      if (!signal.aborted) await delay(inMs, this.#pause.signal);
      // Thousands of processes hear of an end at the same time, and every login can notify: no process asks without a pause.
      await delay((Math.random() * slowLookMs) / 2, signal);
    }
  }

  async #runSchedules(turns: PeerTurns, session: PostgresSession): Promise<void> {
    const functions = schedulerFunctions({
      query: async ({ text, values }) => ({ rows: await session.query(text, values) }),
    });
    let inMs: number = scheduleConstants.retryMs;
    try {
      inMs = await runDueSchedules(functions, () => turns.isEnding);
    } catch (error) {
      this.#runner.tell("schedules cannot be run", error);
    }
    turns.schedules.endLook(performance.now(), inMs);
    this.#runner.pump();
  }

  /** Best effort, as for what senders store: a listener also looks by itself. */
  #announce(session: PostgresSession, { owners, connectionKeys, waiting }: HandedOver): void {
    const known = (owners ?? []).flatMap((name, nth) => (name === "" ? [] : { name, key: connectionKeys![nth] }));
    const topics = waiting ?? [];
    if (known.length + topics.length === 0) return;
    const channels = [...known.map(({ name }) => messageChannel(name)), ...topics.map(() => waitingChannel)];
    const payloads = [...known.map(({ key }) => String(key)), ...topics];
    session.query(announceSql, [channels, payloads]).catch((err) => {
      this.#logger.debug({ err }, "could not announce what was handed over; its listeners will look by themselves");
    });
  }
}

/** When a relay for peers has its turns, and looks for schedules. */
class PeerTurns implements RelayMachine<PeerStep> {
  readonly schedules: SchedulePace;
  readonly #pace: LookPace;
  #laterFrom: string | undefined;
  #isOut = false;
  isEnding = false;
  #adoptsAt = Number.NEGATIVE_INFINITY;
  isDeposed = false;

  constructor({ canNotify }: TakenOutbox) {
    this.#pace = new LookPace({ ...outboxConstants, canBeNotified: canNotify, idleLookMs: peerBeatMs }, false);
    this.schedules = new SchedulePace(canNotify ? undefined : slowLookMs);
  }

  get isIdle(): boolean {
    return !this.#isOut && !this.schedules.isOut;
  }

  get readyAt(): number {
    if (this.isEnding || this.isDeposed) return Number.POSITIVE_INFINITY;
    return Math.min(this.#turnAt, this.schedules.at);
  }

  get #turnAt(): number {
    return this.#isOut ? Number.POSITIVE_INFINITY : this.#pace.at;
  }

  wake(): void {
    this.#pace.notified();
  }

  /** The directory has changed. */
  adopt(): void {
    this.#adoptsAt = Number.NEGATIVE_INFINITY;
  }

  next(now: number): PeerStep | undefined {
    if (this.readyAt > now) return undefined;
    if (this.#turnAt > now) {
      this.schedules.beginLook();
      return "schedules";
    }
    this.#isOut = true;
    const adopts = now >= this.#adoptsAt;
    if (adopts) this.#adoptsAt = now + slowLookMs;
    return {
      asleep: this.#pace.beginLook(now),
      dueFrom: this.#pace.dueFrom(now),
      laterFrom: this.#laterFrom,
      maxMessages: pageMessages,
      maxBytes: peerPageBytes,
      adopts,
    };
  }

  /** @param outcome undefined: another relay works, or Postgres did not answer: the relay begins again */
  settle(step: HandOver, outcome: HandedOver | undefined, now: number): void {
    this.#isOut = false;
    if (outcome === undefined) {
      this.isDeposed = true;
      return;
    }
    const { handed, hasMore, due, doneTo } = outcome;
    this.#laterFrom = doneTo!;
    this.#pace.endLook(now, handed! + due.brought, doneTo!);
    this.#pace.endDue(now, step.dueFrom, due);
    if (hasMore) this.#pace.notified();
  }
}
