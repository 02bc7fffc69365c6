/** Readings that the page and `hawser top` share, each with its limits. */
import {
  type Database,
  deadLetterCauses,
  listPeers,
  listPending,
  listScheduled,
  listSchedules,
  listStreamSubscriptions,
  listTopics,
  outboxOverview,
  readLeader,
} from "../../store/index.js";
import { readAbilities } from "./abilities.js";
import { type Reading, reading } from "./reading.js";

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
  return {
    abilities: of(readAbilities),
    leader: of(readLeader),
    peers: of(listPeers),
    outbox: of(outboxOverview),
    scheduled: of((each) => listScheduled(each, { limit: shownRows })),
    pending: of((each) => listPending(each)),
    topics: of(listTopics),
    streams: of(listStreamSubscriptions),
    schedules: of(listSchedules),
    /** Causes of the newest dead letters. @param beforeId examines only those with a lower id */
    causes: (beforeId?: string) =>
      reading(() => deadLetterCauses(database, { examine: examinedDeadLetters, causes: shownRows + 1, beforeId })),
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
  readonly peers: Read<"peers">;
  readonly outbox: Read<"outbox">;
  readonly pending: Read<"pending">;
  readonly streams: Read<"streams">;
  readonly schedules: Read<"schedules">;
  readonly causes: Read<"causes">;
}

/**
 * Reads the sections one after another, so that it needs one connection. Fails as soon as Postgres cannot be reached;
 * any other failure is that of its section.
 */
export async function readSnapshot(read: Sections): Promise<Reading<Snapshot>> {
  const at = new Date();
  const abilities = await read.abilities();
  if (abilities.state !== "read") return abilities;
  const { login, database } = abilities.value;
  const parts: Partial<Record<SnapshotSection, Reading<unknown>>> = {};
  for (const name of snapshotSections) {
    const part = await read[name]();
    if (part.state === "failed" && part.isAway) return part;
    parts[name] = part;
  }
  return { state: "read", value: { at, login, database, ...(parts as Pick<Snapshot, SnapshotSection>) } };
}

/** Sections of a snapshot, in the order in which they are read. */
const snapshotSections = ["leader", "peers", "outbox", "pending", "streams", "schedules", "causes"] as const;
type SnapshotSection = (typeof snapshotSections)[number];
