/** A process that runs the relay: takes over, carries out its steps against the models, and may be killed or stand still. */
import {
  OutboxRelay,
  type PublishOutcome,
  type PublishStep,
  type RelaySettings,
  type TurnStep,
} from "../../../src/nats/outbox/relay.js";
import { SimulatedProcess } from "../process.js";
import type { Row, TurnAnswer } from "./store.js";
import type { OutboxWorld } from "./world.js";

export const relaySettings: RelaySettings = {
  maxMessages: 30,
  maxBytes: 100_000,
  pageMessages: 8,
  sharedPageMessages: 4,
  maxUnderWay: 10,
  maxUnderWayBytes: 100_000,
  firstUnderWay: 8,
  leastUnderWay: 2,
  deadMessages: 4,
  pollMs: 2,
  manyPollMs: 3,
  manyMessages: 4,
  slowPollMs: 5_000,
  idlePollMs: 30_000,
  unnotifiedPollMs: 20,
  awakeMs: 30,
  busyPolls: 2,
  canBeNotified: true,
  saveMs: 10,
  publishWithinMs: 500,
  dueCheckMs: 300,
  lateMs: 1_800,
  tries: 4,
  maxRefusing: 3,
  maxRefused: 6,
  retryMinMs: 5,
  retryMaxMs: 200,
  awayMs: 100,
  probeMaxMs: 800,
  maxAwayRoutes: 2,
  trialMs: 50,
  suspectPauseMs: 300,
  missingStreamMs: 300,
};

export class RelayProcess extends SimulatedProcess {
  readonly #world: OutboxWorld;
  readonly #owner = {};
  #relay: OutboxRelay<Row> | undefined;
  #starts = 0;
  #taking = false;
  #timer: object | undefined;
  /** Number of connections to NATS that have ended. */
  endedConnections = 0;
  /** Publishes without an answer, each with what ends it. */
  readonly #publishing = new Map<PublishStep<Row>, () => void>();
  /** Mutants: not before this time. */
  #sleepsUntil = 0;

  constructor(world: OutboxWorld) {
    super(world);
    this.#world = world;
    this.#take();
  }

  get isIdle(): boolean {
    return this.#relay?.isIdle === true && !this.#relay.isDeposed;
  }

  /** Dead letters that are still behind its position. */
  get skipped(): readonly bigint[] {
    return this.#relay?.position.skipped ?? [];
  }

  get isDeposed(): boolean {
    return this.#relay?.isDeposed === true;
  }

  /** Postgres has notified. */
  notified(): void {
    this.deliver(() => {
      this.#sleepsUntil = 0;
      this.#relay?.wake();
      this.#pump();
    });
  }

  /** NATS is there again. */
  resumed(): void {
    this.deliver(() => {
      this.#relay?.connected(this.#world.schedule.now);
      this.#pump();
    });
  }

  /** The connection to NATS ends. @param isOutage the first attempt to connect fails */
  cut(isOutage: boolean): void {
    this.endedConnections += 1;
    this.deliver(() => {
      // The relay hears of the publishes or of the connection first.
      const isToldFirst = this.#world.random.chance(0.5);
      if (isToldFirst) this.#relay?.disconnected("cut");
      for (const end of [...this.#publishing.values()]) end();
      if (!isToldFirst) this.#relay?.disconnected("cut");
      if (isOutage) this.#relay?.unreachable();
      this.#pump();
    });
  }

  #take(): void {
    if (this.#taking || this.isDead) return;
    this.#taking = true;
    this.#relay = undefined;
    const { schedule, random, store, counts } = this.#world;
    schedule.after(random.delay(2), () => {
      const taken = store.postgres.isAvailable ? store.take(this.#owner) : undefined;
      const starts = store.postgres.starts;
      const isLost = random.chance(this.#world.faultRate);
      this.after(random.delay(2), () => {
        this.#taking = false;
        if (taken === undefined || isLost) {
          this.after(50, () => this.#take());
          return;
        }
        counts.add("transition: relay took over");
        if (taken.position.to !== undefined) counts.add("transition: took over within a set");
        if (taken.position.series.length > 0) counts.add("transition: took over with series");
        this.#starts = starts;
        const { settings = {} } = this.#world.mutant;
        this.#relay = new OutboxRelay(taken.position, taken.turn, schedule.now, { ...relaySettings, ...settings });
        this.#pump();
      });
    });
  }

  #pump(): void {
    const { schedule, counts } = this.#world;
    const relay = this.#relay;
    if (relay === undefined) return;
    if (relay.isDeposed) {
      // Another one leads, or the server is another one: whoever is asked to lead takes over again.
      counts.add("transition: relay deposed");
      this.isDead = true;
      return;
    }
    for (let step = this.#next(); step !== undefined; step = this.#next()) {
      if (step.kind === "turn") this.#turn(relay, step);
      else this.#publish(relay, step);
    }
    const at = Math.max(relay.readyAt, this.#sleepsUntil);
    if (at === Number.POSITIVE_INFINITY) return;
    const timer = (this.#timer = {});
    this.after(Math.max(0.01, at - schedule.now), () => {
      if (this.#timer === timer) this.#pump();
    });
  }

  #next(): TurnStep<Row> | PublishStep<Row> | undefined {
    const { now } = this.#world.schedule;
    return now < this.#sleepsUntil ? undefined : this.#relay?.next(now);
  }

  #turn(relay: OutboxRelay<Row>, given: TurnStep<Row>): void {
    const { schedule, random, store, counts, mutant, faultRate } = this.#world;
    const step = mutant.turn?.(given) ?? given;
    this.#world.turnBegins(given);
    const begunAt = schedule.now;
    const starts = this.#starts;
    const fails = random.chance(faultRate);
    const isCommitted = !fails || random.chance(0.5);
    const settle = (answer: TurnAnswer | undefined): void => {
      this.after(random.delay(1), () => {
        if (this.#relay !== relay) return;
        if (store.postgres.starts !== starts) {
          this.#take();
          return;
        }
        const changed = answer && (mutant.answer?.(answer, given) ?? answer);
        const known = mutant.manyPerKey === true ? withoutLanes(changed) : changed;
        relay.completeTurn(given, known ?? { kind: "unavailable" }, begunAt, schedule.now);
        if (mutant.sleepsAtOnce === true && given.asleep === true) {
          this.#sleepsUntil = schedule.now + relaySettings.slowPollMs;
        }
        this.#pump();
      });
    };
    schedule.after(random.delay(random.chance(faultRate / 4) ? 60 : 0.5), () => {
      if (!store.postgres.isAvailable || store.postgres.starts !== starts || !isCommitted) {
        counts.add("fault: turn lost");
        settle(undefined);
        return;
      }
      const answer = store.turn(this.#owner, step);
      if (fails) counts.add("fault: answer to a turn lost");
      settle(fails ? undefined : answer);
    });
  }

  #publish(relay: OutboxRelay<Row>, step: PublishStep<Row>): void {
    const complete = (outcome: PublishOutcome): void => {
      if (this.#relay !== relay || !this.#publishing.delete(step)) return;
      const changed = this.#world.mutant.outcome?.(outcome) ?? outcome;
      relay.completePublish(step, changed, this.#world.schedule.now);
    };
    this.#publishing.set(step, () => complete({ kind: "unavailable", scope: "connection", mayBeThere: true }));
    this.#world.publish(this, step, (outcome) =>
      this.deliver(() => {
        complete(outcome);
        this.#pump();
      }),
    );
  }
}

function withoutLanes(answer: TurnAnswer | undefined): TurnAnswer | undefined {
  if (answer?.kind !== "done" || answer.found === undefined) return answer;
  const messages = answer.found.messages.map((row) => ({ ...row, lane: undefined, original: row }));
  return { ...answer, found: { ...answer.found, messages } };
}
