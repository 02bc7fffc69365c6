/** State of an installation at a glance: what the navigation counts and the overview shows. It is read once for all who look. */
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import type { Clock } from "../../foundation/runtime/index.js";
import { certificateWarningMs, maxBehindMs, maxUnreadMs } from "../doctor/index.js";
import { needsHelp, newsMs } from "../operate/index.js";
import type { Tone } from "./overview-tables.js";
import type { Reading } from "./reading.js";
import { type Sections, snapshotRows } from "./sections.js";

/** Age up to which a glance is shown again. */
const freshMs = 4_000;

/** Readings that began together. Lists have at most `snapshotRows` rows. */
export interface Glance {
  /** Time at which the reading began, on the clock of the page, in ms since 1970. */
  readonly at: number;
  readonly topics: Awaited<ReturnType<Sections["topics"]>>;
  readonly causes: Awaited<ReturnType<Sections["causes"]>>;
  readonly peers: Awaited<ReturnType<Sections["presence"]>>;
  readonly schedules: Awaited<ReturnType<Sections["schedules"]>>;
  readonly nats: Awaited<ReturnType<Sections["nats"]>>;
  /** Number of messages that are due later. */
  readonly later: Awaited<ReturnType<Sections["later"]>>;
  readonly streams: Awaited<ReturnType<Sections["streams"]>>;
  readonly leader: Awaited<ReturnType<Sections["leader"]>>;
  /** True if a process leads, and has sent a heartbeat since the glance before. */
  readonly isLed: boolean;
  /** The last hour of all topics together. */
  readonly series: Awaited<ReturnType<Sections["series"]>>;
}

/** Newest glance. */
export interface ShownGlance {
  /** Undefined if Postgres has not been reached yet. */
  readonly glance: Glance | undefined;
  readonly ageMs: number;
  /** Reason why Postgres could not be reached; the glance is of the time before. Undefined if it could. */
  readonly away: string | undefined;
}

/** Reads glances: each look at an old one starts a reading, which all who look meanwhile share. */
export class Glances {
  readonly #read: Sections;
  readonly #clock: Clock;
  #glance: Glance | undefined;
  #readAt = Number.NEGATIVE_INFINITY;
  #away: string | undefined;
  #running: Promise<void> | undefined;

  constructor(read: Sections, clock: Clock) {
    this.#read = read;
    this.#clock = clock;
  }

  /** The newest one, which may be old, and undefined before the first one. If it is old, the next one is read meanwhile. */
  get newest(): ShownGlance {
    if (!this.#isFresh()) void this.#reading();
    return this.#shown();
  }

  /** A fresh one, or the last one before Postgres was away. Rejects only for a defect. */
  async fresh(): Promise<ShownGlance> {
    if (!this.#isFresh()) await this.#reading();
    return this.#shown();
  }

  /** Waits for the reading that runs, if one does. */
  async settled(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  #isFresh(): boolean {
    return this.#away === undefined && this.#clock.now() - this.#readAt < freshMs;
  }

  #shown(): ShownGlance {
    return { glance: this.#glance, ageMs: this.#clock.now() - this.#readAt, away: this.#away };
  }

  #reading(): Promise<void> {
    this.#running ??= this.#readAll().finally(() => {
      this.#running = undefined;
    });
    // Whoever does not wait for it does not see its defect; the next one who does, does.
    this.#running.catch(() => undefined);
    return this.#running;
  }

  async #readAll(): Promise<void> {
    const startedAt = this.#clock.now();
    const at = Date.now();
    const read = this.#read;
    const listing = { limit: snapshotRows };
    // The first one alone: if Postgres is away, one connection finds out.
    const topics = await read.topics({ ...listing, sort: "oldest" });
    const away = topics.state === "failed" && topics.isAway ? topics.why : undefined;
    if (away === undefined) {
      const [causes, peers, schedules, nats, later, streams, leader, series] = await Promise.all([
        read.causes({ newsFirst: true }),
        read.presence(listing),
        read.schedules(listing),
        read.nats(),
        read.later(),
        read.streams(listing),
        read.leader(),
        read.series({ kind: "topic" }),
      ]);
      const beat = beatOf(leader);
      // Glances are no closer to each other than a leader's longest silence.
      const isLed = beat !== undefined && beat !== (this.#glance && beatOf(this.#glance.leader));
      this.#glance = { at, topics, causes, peers, schedules, nats, later, streams, leader, isLed, series };
      this.#readAt = startedAt;
    }
    this.#away = away;
  }
}

/** Heartbeat of the leader; undefined if none leads, or if that is not known. */
function beatOf(leader: Glance["leader"]): string | undefined {
  if (leader.state !== "read" || leader.value === undefined || leader.value.owner === null) return undefined;
  return `${leader.value.epoch} ${leader.value.beat}`;
}

/** Number of topics that are served and behind which are signs, the oldest ones. */
const signsOfBehind = 3;

/**
 * Signs of what `hawser doctor` would say: they change when something needs somebody, or no longer does.
 *
 * They are names alone, not numbers, which change all the time.
 */
export function signsOf({ glance, away }: ShownGlance): string {
  if (glance === undefined || away !== undefined) return "away";
  const { at, topics, peers, schedules, streams, leader, isLed } = glance;
  const rows = <T>(read: Reading<readonly T[]>): readonly T[] => (read.state === "read" ? read.value : []);
  const isOlder = (oldest: Date | null, ms: number): boolean => oldest !== null && at - oldest.getTime() > ms;
  const endsSoon = (end: Date | null): boolean => end !== null && end.getTime() - at < certificateWarningMs;
  const waiting = rows(topics).filter((topic) => topic.waiting > 0);
  return JSON.stringify([
    waiting.filter(({ state, oldest }) => needsHelp(state) && isOlder(oldest, maxUnreadMs)).map(({ topic }) => topic),
    waiting
      .filter(({ state, oldest }) => state === "running" && isOlder(oldest, maxBehindMs))
      .slice(0, signsOfBehind)
      .map(({ topic }) => topic),
    rows(peers)
      .filter(({ running, certificateEndsAt }) => running && endsSoon(certificateEndsAt))
      .map(({ name }) => name),
    rows(schedules).map(({ name, role, problem }) => problem !== null && `${role} ${name}`),
    rows(streams).map(({ name, problem }) => problem !== null && name),
    isLed,
    leader.state === "read" && endsSoon(leader.value?.certificateEndsAt ?? null),
  ]);
}

/** Entry of the navigation that has a badge. */
export type Place = "overview" | "topics" | "backlog" | "later" | "dead" | "peers" | "schedules" | "outbox" | "streams";

/** Number at an entry of the navigation. */
export interface Badge {
  readonly count: number;
  readonly hasMore?: boolean;
  /** Undefined: nothing of it needs anybody. */
  readonly alarm?: Tone | undefined;
  /** Words for what the number counts. */
  readonly what: string;
}

/** Badges of the navigation. */
export interface Badges {
  /** False if nothing of NATS was ever used in the database. */
  readonly hasNats: boolean;
  readonly of: Partial<Readonly<Record<Place, Badge>>>;
}

/** Counts what a glance shows. @param now time of the view, in ms since 1970 */
export function badgesOf(glance: Glance, now: number): Badges {
  const { topics, causes, peers, schedules, later, streams, leader } = glance;
  const of: Partial<Record<Place, Badge>> = {};
  const list = <T>(
    place: Place,
    read: Reading<readonly T[]>,
    what: string,
    alarms: { readonly of: (row: T) => boolean; readonly tone: Tone; readonly what: string },
    isCounted: (row: T) => boolean = () => true,
  ): void => {
    if (read.state !== "read") return;
    const alarmed = read.value.filter(alarms.of).length;
    const all = read.value.filter(isCounted).length;
    of[place] =
      alarmed > 0
        ? { count: alarmed, alarm: alarms.tone, what: alarms.what }
        : { count: all, hasMore: read.value.length >= snapshotRows, what };
  };
  list("topics", topics, "topics", {
    of: ({ waiting, state }) => waiting > 0 && needsHelp(state),
    tone: "error",
    what: "topics whose messages nobody takes",
  });
  list(
    "peers",
    peers,
    "run",
    { of: ({ running, clean }) => !running && clean === false, tone: "warning", what: "ended uncleanly" },
    ({ running }) => running,
  );
  const stuck = { of: ({ problem }: { readonly problem: string | null }) => problem !== null, tone: "error" } as const;
  list("schedules", schedules, "schedules", { ...stuck, what: "schedules that do not run" });
  list("streams", streams, "subscriptions to streams", {
    ...stuck,
    what: "subscriptions to streams that have stopped",
  });
  if (topics.state === "read") {
    const count = topics.value.reduce((sum, { waiting }) => sum + waiting, 0);
    of.backlog = { count, hasMore: topics.value.some(({ hasMore }) => hasMore), what: "messages wait" };
  }
  if (causes.state === "read") {
    const { examined, olderThanId } = causes.value;
    const isNew = causes.value.causes.some(({ newestAt }) => now - newestAt.getTime() < newsMs);
    of.dead = {
      count: examined,
      hasMore: olderThanId !== undefined,
      alarm: isNew ? "warning" : undefined,
      what: isNew ? "dead letters, with some of the last hour" : "dead letters",
    };
  }
  if (later.state === "read") {
    const count = later.value;
    of.later = { count, hasMore: count >= queueConstants.countedMessages, what: "messages are due later" };
  }
  const nats = glance.nats.state === "read" ? glance.nats.value : undefined;
  if (nats !== undefined) of.outbox = { count: nats.waiting, hasMore: nats.hasMore, what: "messages wait for NATS" };
  const isLed = leader.state !== "read" || (leader.value !== undefined && leader.value.epoch > 0n);
  const hasStreams = streams.state === "read" && streams.value.length > 0;
  const hasNats = isLed || hasStreams || (nats !== undefined && nats.waiting + nats.later + nats.deadLetters > 0);
  return { hasNats, of };
}
