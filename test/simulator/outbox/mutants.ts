/** Departures from the rules of the outbox, each of which the simulator must catch: they show that it can fail. */
import type { PublishOutcome, RelaySettings, TurnStep } from "../../../src/nats/outbox/relay.js";
import { events, type MutantOptions, simulation } from "../simulation.js";
import type { Row, TurnAnswer } from "./store.js";
import { OutboxWorld, type outboxFaults } from "./world.js";

/** Faults inside Postgres. */
export interface OutboxFaults {
  readonly readsById?: boolean;
  readonly ordersByXid?: boolean;
  readonly noFence?: boolean;
  readonly savesTwice?: boolean;
  readonly readsBeforeFlush?: boolean;
  readonly truncatesBlindly?: boolean;
  readonly keepsForeignXids?: boolean;
  readonly forgetsLateCommits?: boolean;
  readonly bringsEarly?: boolean;
  readonly bringsTwice?: boolean;
  /** A series of a route is taken for one of its whole role. */
  readonly ignoresRoutes?: boolean;
}

/** Parts of a run that a mutant replaces. */
export interface OutboxMutant extends MutantOptions {
  readonly store?: OutboxFaults;
  readonly settings?: Partial<RelaySettings>;
  /** A turn as it reaches Postgres. */
  readonly turn?: (step: TurnStep<Row>) => TurnStep<Row>;
  /** The answer to a turn as it reaches the relay. */
  readonly answer?: (answer: TurnAnswer, step: TurnStep<Row>) => TurnAnswer;
  /** Outcome of a publish, as it reaches the relay. */
  readonly outcome?: (outcome: PublishOutcome) => PublishOutcome;
  readonly sleepsAtOnce?: boolean;
  readonly believesDoubtful?: boolean;
  /** Publishes again without a search. */
  readonly believesAgain?: boolean;
  /** A stream is taken to know the ids of what it has removed, also after a start of its server. */
  readonly believesMemory?: boolean;
  /** Publishes a message that a search did not find. */
  readonly believesLooks?: boolean;
  readonly manyPerKey?: boolean;
  /** Takes the end of a connection by a message for an outage. */
  readonly believesOutage?: boolean;
  /** Only these faults, and all of them, so often. */
  readonly faults?: readonly (typeof outboxFaults)[number][];
  readonly faultTimes?: number;
}

const mustHappen = [
  ...events("fault", "kill", "twin", "stall", "crash", "failover", "restore", "outage", "nats", "long", "setback"),
  ...events("fault", "away", "burst", "turn lost", "answer to a turn lost", "publish lost", "publish refused"),
  ...events("fault", "domain away", "acknowledgement lost", "poison"),
  ...events("transition", "early xid", "rolled back", "savepoint rolled back", "waited for a key", "notified"),
  ...events("transition", "look with a rest", "look without a role that has more", "route away", "page of a route"),
  ...events("transition", "took over with series"),
  ...events("transition", "relay took over", "took over within a set", "relay deposed", "turn was saved before"),
  ...events("transition", "set of several pages", "dead letter", "duplicate dropped by the stream"),
  ...events("transition", "looked for a message in doubt", "message in doubt was there", "message stays in doubt"),
  ...events("transition", "message consumed", "due messages brought in", "message brought in was taken back"),
  ...events("transition", "message written again", "slot truncated", "slot still written", "slot not done"),
  ...events("transition", "messages of another cluster adopted", "connection ended by a message"),
];

/** Saves what has been read for what is done. */
function positionBeforeAck(step: TurnStep<Row>): TurnStep<Row> {
  const { read } = step;
  if (read?.kind !== "poll") return step;
  return { ...step, position: { from: read.from, to: undefined, after: 0n, series: [], skipped: [] } };
}

/** Saves a series as if its set had been read. */
function joinsUnread(step: TurnStep<Row>): TurnStep<Row> {
  const series = step.position.series.map((each) => ({
    ...each,
    from: each.to ?? each.from,
    to: undefined,
    after: 0n,
  }));
  return { ...step, position: { ...step.position, series } };
}

/** Saves no series that is read with main again. */
function forgetsClosed(step: TurnStep<Row>): TurnStep<Row> {
  const { read, position } = step;
  if (read?.kind !== "poll") return step;
  const series = position.series.filter(({ role, route }) =>
    read.series.some((open) => open.role === role && open.route === route),
  );
  return { ...step, position: { ...position, series } };
}

function withoutRest(answer: TurnAnswer): TurnAnswer {
  if (answer.kind !== "done" || answer.found?.kind !== "poll") return answer;
  return { ...answer, found: { ...answer.found, rest: [] } };
}

/** The rest of a role of which a look has read nothing is read from behind the messages of the others. */
function restBehindOthers(answer: TurnAnswer): TurnAnswer {
  if (answer.kind !== "done" || answer.found?.kind !== "poll") return answer;
  const after = answer.found.messages.at(-1)?.id ?? 0n;
  return { ...answer, found: { ...answer.found, rest: answer.found.rest.map((each) => ({ ...each, after })) } };
}

/** Answer of a turn that does not read again the dropped messages of a route that is away. */
function withoutDropped(answer: TurnAnswer, { read }: TurnStep<Row>): TurnAnswer {
  if (answer.kind !== "done" || read?.kind !== "page" || read.route === undefined) return answer;
  return { ...answer, found: { kind: "page", messages: [], hasMore: false } };
}

/** Nothing new is read while pages are. */
function looksLast(answer: TurnAnswer, { read, position }: TurnStep<Row>): TurnAnswer {
  if (answer.kind !== "done" || answer.found?.kind !== "poll" || read?.kind !== "poll") return answer;
  const isPaging = position.series.some(({ to }) => to !== undefined) && read.series.every(({ joins }) => !joins);
  if (!isPaging || read.laterFrom === undefined) return answer;
  return { ...answer, found: { kind: "poll", to: read.from, messages: [], rest: [] } };
}

const mutants: Readonly<Record<string, OutboxMutant>> = {
  "reads by id": { store: { readsById: true } },
  "reads by (xid, id)": { store: { ordersByXid: true } },
  "position before the ack": { turn: positionBeforeAck, faults: ["kill"], faultTimes: 4 },
  "no fence": { store: { noFence: true }, faults: ["twin", "stall", "kill"], faultTimes: 6 },
  "several under way for one key": { manyPerKey: true },
  "sleeps without the last look": { firstSeed: 21, sleepsAtOnce: true },
  "truncates a slot that can still be written": { store: { truncatesBlindly: true } },
  "takes another cluster's xids for its own": { store: { keepsForeignXids: true }, faults: ["restore"] },
  "publishes before the commits are on disk": { store: { readsBeforeFlush: true }, faults: ["crash"], faultTimes: 6 },
  "forgets later messages of transactions that commit late": { firstSeed: 17, store: { forgetsLateCommits: true } },
  "delivers before the time": { store: { bringsEarly: true } },
  "brings in a second time": { store: { bringsTwice: true } },
  "publishes again without a look": { firstSeed: 735, believesAgain: true, faults: ["setback"], faultTimes: 4 },
  "takes a look for complete that has a rest": { answer: withoutRest },
  "reads a rest from behind the messages of others": { answer: restBehindOthers },
  "saves a series as read that is not": { turn: joinsUnread },
  "forgets a series when it is read with main again": { turn: forgetsClosed },
  "forgets what it dropped of a route that is away": { answer: withoutDropped, faults: ["away"], faultTimes: 4 },
  "takes a series of a route for one of its role": {
    store: { ignoresRoutes: true },
    faults: ["away"],
    faultTimes: 4,
  },
  "puts the loss of a connection on routes": {
    outcome: (outcome) => (outcome.kind === "unavailable" ? { ...outcome, scope: "route" } : outcome),
    faults: ["nats"],
    faultTimes: 4,
  },
  "takes what was sent without an answer for what was not sent": {
    firstSeed: 47,
    outcome: (outcome) => (outcome.kind === "unavailable" ? { ...outcome, mayBeThere: false } : outcome),
    faults: ["nats", "away"],
    faultTimes: 4,
  },
  "waits for pages before it looks": { firstSeed: 90, answer: looksLast },
  "has no routes that are away": { firstSeed: 171, settings: { awayMs: Number.POSITIVE_INFINITY } },
  "saves a turn a second time": { store: { savesTwice: true }, seeds: 4_000 },
  "publishes again what is in doubt without a look": {
    believesDoubtful: true,
    faults: ["nats", "kill"],
    faultTimes: 4,
  },
  "leaves it to a stream to drop what it has removed, though its server has started since": {
    firstSeed: 516,
    believesMemory: true,
    faults: ["nats"],
    faultTimes: 8,
    seeds: 4_000,
  },
  "publishes what a look has not found in a stream that removes messages": {
    believesLooks: true,
    faults: ["nats", "kill"],
    faultTimes: 4,
  },
  "takes a message that ends its connection for an outage": { believesOutage: true, faults: ["poison"] },
  "gives up what the relay before it may still publish": {
    firstSeed: 309,
    settings: { lateMs: 0, tries: 1 },
    faults: ["stall", "twin"],
    faultTimes: 8,
    seeds: 2_000,
  },
  "publishes however long it has heard nothing": {
    firstSeed: 74,
    settings: { publishWithinMs: Number.POSITIVE_INFINITY },
    faults: ["stall", "twin"],
    faultTimes: 6,
    seeds: 8_000,
  },
};

/** Relay of the outbox to NATS. */
export const outbox = simulation<OutboxMutant>("outbox", (seed, mutant) => new OutboxWorld(seed, mutant), mutants, {
  firstSeed: 371,
  // A role commits more than a page shortly before a message.
  knownSeeds: [7_037_061],
  mustHappen,
});
