/** Readings that the page and `hawser top` share, each with its limits. */

import type { Database } from "../../jobs-and-peers/store/index.js";
import {
  countLater,
  deadLetterCauses,
  type Listing,
  listPeers,
  listPending,
  listPresence,
  listScheduled,
  listSchedules,
  listStreamSubscriptions,
  listTopics,
  natsOverview,
  outboxOverview,
  readLeader,
  readSeries,
  type SeriesRequest,
} from "../operate/index.js";
import { readAbilities } from "./abilities.js";
import { type Reading, reading } from "./reading.js";
import { readTopicRates, type TopicRates, type TopSort } from "./topic-rates.js";

/** Number of dead letters that are grouped by cause, the newest first. */
export const examinedDeadLetters = 10_000;
/** Maximum number of rows in a table of the page. */
export const shownRows = 100;

/** Readings of an installation. None rejects, except for a defect. */
export function sections(database: Database) {
  const of =
    <T>(read: (database: Database) => Promise<T>) =>
    (): Promise<Reading<T>> =>
      reading(() => read(database));
  const listOf =
    <T, L extends Listing>(read: (database: Database, listing?: L) => Promise<T[]>) =>
    (listing?: L): Promise<Reading<T[]>> =>
      reading(() => read(database, listing));
  return {
    abilities: of(readAbilities),
    leader: of(readLeader),
    peers: listOf(listPeers),
    /** Peers without what waits for them. */
    presence: listOf(listPresence),
    outbox: of(outboxOverview),
    /** Outbox for NATS. */
    nats: of(natsOverview),
    /** Number of messages that are due later. */
    later: of(countLater),
    scheduled: listOf(listScheduled),
    pending: listOf(listPending),
    topics: listOf(listTopics),
    streams: listOf(listStreamSubscriptions),
    schedules: listOf(listSchedules),
    /** Series of samples. */
    series: (request: SeriesRequest) => reading(() => readSeries(database, request)),
    /** Causes of the newest dead letters, or of those that the options select: see {@link deadLetterCauses}. */
    causes: (options: Omit<Parameters<typeof deadLetterCauses>[1], "examine" | "causes"> = {}) =>
      reading(() => deadLetterCauses(database, { examine: examinedDeadLetters, causes: shownRows + 1, ...options })),
  };
}

/** Readings of {@link sections}. */
export type Sections = ReturnType<typeof sections>;

/** Result of a section's reading. */
type Read<Name extends keyof Sections> = Awaited<ReturnType<Sections[Name]>>;

/** State of an installation, read section by section. */
export interface Snapshot {
  /** Time at which the reading began. */
  readonly at: Date;
  readonly login: string;
  readonly database: string;
  readonly leader: Read<"leader">;
  readonly topics: Reading<TopicRates[]>;
  readonly peers: Read<"peers">;
  readonly outbox: Read<"outbox">;
  readonly pending: Read<"pending">;
  readonly streams: Read<"streams">;
  readonly schedules: Read<"schedules">;
  readonly causes: Read<"causes">;
}

/** Maximum number of rows of a list in a snapshot. */
export const snapshotRows = 1_000;

/** Columns by which the lists of a snapshot are sorted. */
const sortColumns: Partial<Readonly<Record<SnapshotSection, Partial<Readonly<Record<TopSort, string>>>>>> = {
  topics: { waiting: "waiting", oldest: "oldest", name: "topic" },
  peers: { waiting: "waiting", oldest: "oldest", name: "name" },
  pending: { waiting: "messages", oldest: "oldest", name: "topic" },
  streams: { name: "name" },
  schedules: { name: "name" },
};

/**
 * Reads the sections one after another, so that it needs one connection. Fails as soon as Postgres cannot be reached;
 * any other failure is that of its section.
 *
 * @param filter only rows of lists with this text in their names
 * @param sort order of the lists that have it. Default: the order of each
 */
export async function readSnapshot(read: Sections, filter?: string, sort?: TopSort): Promise<Reading<Snapshot>> {
  const at = new Date();
  const abilities = await read.abilities();
  if (abilities.state !== "read") return abilities;
  const { login, database } = abilities.value;
  const parts: Partial<Record<SnapshotSection, Reading<unknown>>> = {};
  for (const name of snapshotSections) {
    const by = sort && sortColumns[name]?.[sort];
    const listing = { filter, limit: snapshotRows, sort: by, isDescending: sort === "waiting" };
    const own = {
      leader: read.leader,
      topics: () => readTopicRates(read, listing, sort),
      outbox: read.outbox,
      causes: () => read.causes(),
    };
    const part = await (name in own ? own[name as keyof typeof own]() : read[name as "peers"](listing));
    if (part.state === "failed" && part.isAway) return part;
    parts[name] = part;
  }
  return { state: "read", value: { at, login, database, ...(parts as Pick<Snapshot, SnapshotSection>) } };
}

/** Sections of a snapshot, in the order in which they are read. */
const snapshotSections = ["leader", "topics", "peers", "outbox", "pending", "streams", "schedules", "causes"] as const;
type SnapshotSection = (typeof snapshotSections)[number];
