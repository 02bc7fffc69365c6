/** Enqueued messages for operators, jobs and those for NATS: status, what is due later, cancellation, replay. */
import { outboxFunctions, views } from "../../../generated/ts/rows/outbox.js";
import { cancelFunctions, views as queueViews } from "../../../generated/ts/rows/queue.js";
import { queueConstants } from "../../../generated/ts/settings/queue.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";
import { type Listing, listed } from "./listing.js";

/** Kind of an enqueued message: `peer` for a job, or `nats`. */
export type EnqueuedKind = "nats" | "peer";

/** Segment of the outbox table. */
interface OutboxSegment {
  readonly segment: number;
  /** True if new messages go to this segment. */
  readonly filling: boolean;
  readonly bytes: number;
  /** Time at which its first message was enqueued; null if it is empty. */
  readonly oldest: string | null;
}

/** Number of waiting, later and dead messages of one kind. */
export interface EnqueuedOverview {
  readonly waiting: number;
  /** True if there are more than `waiting`. */
  readonly hasMore: boolean;
  readonly oldestWaitingAt: Date | null;
  readonly oldestWaitingFor: string | null;
  readonly later: number;
  readonly nextDueAt: Date | null;
  readonly deadLetters: number;
}

/** Row of `hawser.outbox_status`: state of one kind of messages. Jobs have no relay, position or segments. */
export interface OutboxOverview extends EnqueuedOverview {
  readonly kind: EnqueuedKind;
  readonly relay: string | null;
  readonly isAwake: boolean;
  readonly positionSavedAt: Date | null;
  readonly segments: readonly OutboxSegment[];
}

/** Message that has to be handled before another one: `waiting`, a `dead` letter that can be retried, or `gone`. */
export interface HeldBy {
  readonly id: string;
  readonly state: "waiting" | "dead" | "gone";
}

/** Message that is not due yet, or is held until others have been handled. */
export interface ScheduledMessage {
  readonly id: string;
  /** State that `job` tells; of a message for NATS `later`. */
  readonly state: "later" | "held";
  readonly deliverAt: Date;
  readonly destination: string;
  readonly key: string | null;
  /** Empty if the login may not read messages; then `key` is null. */
  readonly messageId: string;
  readonly payloadBytes: number;
  readonly enqueuedAt: Date;
  readonly priority: number;
  /** Number of messages that have to be handled before; 0 for none. It may be due then. */
  readonly heldFor: number;
  /** Up to 100 of these messages, those that release nothing first; null if it is not held. */
  readonly waitsFor: readonly HeldBy[] | null;
}

/** Filter of {@link listScheduled}. */
export interface ScheduledFilter extends Listing {
  /** Default: both. */
  readonly kind?: EnqueuedKind | undefined;
  readonly state?: ScheduledMessage["state"] | undefined;
  readonly destination?: string | undefined;
}

/** Messages to publish again: the arguments of `hawser.outbox_replay`. */
export interface ReplaySelection {
  readonly since: Date;
  readonly until?: Date | undefined;
  readonly subject?: string | undefined;
  readonly core: boolean;
}

const enqueuedColumns = `s.waiting::float8 AS waiting, NOT s.is_complete AS "hasMore", s.oldest_waiting_at AS "oldestWaitingAt",
                  s.oldest_waiting_for AS "oldestWaitingFor", s.later::float8 AS later, s.next_due_at AS "nextDueAt", s.dead_letters::float8 AS "deadLetters"`;

const outboxSql = `SELECT s.kind, s.relay, s.is_awake AS "isAwake", s.position_saved_at AS "positionSavedAt", s.segments, ${enqueuedColumns}
             FROM ${views.outboxStatus} AS s`;

/** Reads the state of both kinds of messages. @throws HawserError as {@link Database.query} */
export function outboxOverview(database: Database): Promise<OutboxOverview[]> {
  return database.query<OutboxOverview>("read the state of the outbox", { text: `${outboxSql} ORDER BY s.kind` });
}

/** Reads the state of the messages for NATS, without counting jobs. @throws HawserError as {@link Database.query} */
export async function natsOverview(database: Database): Promise<OutboxOverview | undefined> {
  const rows = await database.query<OutboxOverview>("read the state of the outbox", {
    text: `${outboxSql} WHERE s.kind = 'nats'`,
  });
  return rows[0];
}

/** Counts the messages that are due later, or held, up to `countedMessages`. @throws HawserError as {@link Database.query} */
export async function countLater(database: Database): Promise<number> {
  const text = `SELECT count(*)::float8 AS count FROM (SELECT FROM ${queueViews.laterMessage} LIMIT $1) AS l`;
  const values = [queueConstants.countedMessages];
  const [row] = await database.query<{ count: number }>("count the messages that are due later", { text, values });
  return row!.count;
}

/** Reads the state of jobs. @throws HawserError as {@link Database.query} */
export function jobsOverview(database: Database): Promise<EnqueuedOverview[]> {
  return database.query<EnqueuedOverview>("read the state of the queue", {
    text: `SELECT ${enqueuedColumns} FROM ${views.outboxStatus} AS s WHERE s.kind = 'peer'`,
  });
}

/** Lists scheduled messages, the next due first. @throws HawserError as {@link Database.query} */
export function listScheduled(database: Database, filter: ScheduledFilter = {}): Promise<ScheduledMessage[]> {
  const { kind = null, state = null, destination = null, ...listing } = filter;
  const rows = `SELECT l.id::text AS id, CASE l.kind WHEN 'held' THEN 'held' ELSE 'later' END AS state, l.deliver_at AS "deliverAt",
                       l.destination, l.key, l.message_id AS "messageId", l.payload_bytes AS "payloadBytes", l.enqueued_at AS "enqueuedAt", l.priority, l.held_for AS "heldFor", l.waits_for AS "waitsFor"
                  FROM ${queueViews.laterMessage} AS l
                 WHERE ($1::text IS NULL OR (l.kind = 'nats') = ($1 = 'nats')) AND ($2::text IS NULL OR (l.kind = 'held') = ($2 = 'held'))
                   AND ($3::text IS NULL OR l.destination = $3)`;
  const list = {
    rows,
    values: [kind, state, destination],
    names: ["l.destination", "l.key"],
    order: 'l."deliverAt", l.id::bigint',
    sorts: {
      id: "l.id::bigint",
      due: 'l."deliverAt"',
      for: 'l.destination COLLATE "C"',
      priority: "l.priority",
      bytes: 'l."payloadBytes"',
    },
  };
  return listed(database, "list the messages that are due later", list, listing);
}

/** Outcome of cancelling a message, as of `hawser.cancel`. */
export interface Cancelled {
  readonly id: string;
  readonly outcome: "cancelled" | "cancelling" | "not_waiting";
}

/** Messages to cancel: of one kind, those with some ids, or those of a topic or subject; of a subject only what is due later. */
export interface CancelSelection {
  readonly kind: EnqueuedKind;
  readonly ids?: readonly bigint[];
  /** With ids: their flows as a whole. Only for jobs. */
  readonly flow?: boolean | undefined;
  readonly destination?: string | undefined;
  readonly key?: string | undefined;
  /** Only messages that were enqueued before. */
  readonly before?: Date | undefined;
}

/** Number of messages that are cancelled per transaction. */
const cancelledMessages = 1_000;

/**
 * Cancels messages, page by page, those of roles that the login is a member of.
 *
 * @throws HawserError `invalid_argument` before anything is cancelled, if one of the ids is of the other kind; as {@link Database.query}
 */
export async function* cancelMessages(database: Database, selection: CancelSelection): AsyncGenerator<Cancelled[]> {
  const { kind, ids = [], flow = false, destination, key = null, before = null } = selection;
  const functions = cancelFunctions(database.caller("cancel messages"));
  const outcome = (id: bigint, state: string): Cancelled => ({
    id: String(id),
    outcome: state as Cancelled["outcome"],
  });
  await refuseOtherKind(database, kind, ids);
  for (const id of ids) {
    const rows = flow ? await functions.cancelFlow({ ofId: id }) : [{ id, ...(await functions.cancel({ id })) }];
    yield rows.length === 0 ? [outcome(id, "not_waiting")] : rows.map((row) => outcome(row.id, row.state));
  }
  if (destination === undefined) return;
  for (let after = -(2n ** 63n); ; ) {
    const page = await functions.cancelMessages({ kind, destination, key, before, after, most: cancelledMessages });
    yield page.filter(({ state }) => state !== "not_waiting").map(({ id, state }) => outcome(id, state));
    if (page.length < cancelledMessages) return;
    after = page.at(-1)!.rank;
  }
}

/** Refuses ids of the other kind. An id keeps its kind: the search and the cancellation need no transaction. */
async function refuseOtherKind(database: Database, kind: EnqueuedKind, ids: readonly bigint[]): Promise<void> {
  if (ids.length === 0) return;
  const isOther =
    kind === "nats"
      ? "(hawser.job(i.id)).state <> 'unknown'"
      : `EXISTS (SELECT FROM hawser.outbox_find(i.id, NULL, 1)) OR EXISTS (SELECT FROM ${queueViews.laterMessage} AS l WHERE l.id = i.id AND l.kind = 'nats')`;
  const [other] = await database.query<{ id: string }>("look for messages to cancel", {
    text: `SELECT i.id::text AS id FROM unnest($1::bigint[]) AS i (id) WHERE ${isOther} LIMIT 1`,
    values: [ids.map(String)],
  });
  if (other === undefined) return;
  const [what, command] = kind === "nats" ? ["a job", "hawser jobs cancel"] : ["for NATS", "hawser outbox cancel"];
  throw new HawserError("invalid_argument", `the message ${other.id} is ${what}; cancel it with \`${command}\``);
}

/** Number of messages examined per transaction. */
const pageMessages = 5_000;

/**
 * Enqueues messages again that the outbox still stores, page by page.
 *
 * @param onPage called after each page with the number of enqueued messages so far and the enqueue time of the last
 * examined one
 * @returns number of enqueued messages
 */
export async function replayOutbox(
  database: Database,
  { since, until, subject, core }: ReplaySelection,
  onPage: (replayed: number, reached: Date) => void,
): Promise<number> {
  const functions = outboxFunctions(database.caller("publish messages of the outbox again"));
  let replayed = 0;
  let after = 0n;
  let upto: bigint | null = null;
  for (;;) {
    const page: Awaited<ReturnType<typeof functions.replayPage>> = await functions.replayPage({
      since,
      subject: subject ?? null,
      until: until ?? null,
      core,
      after,
      upto,
      maxMessages: pageMessages,
    });
    replayed += Number(page.replayed);
    if (page.lastId === null || page.enqueuedAt === null) return replayed;
    onPage(replayed, page.enqueuedAt);
    after = page.lastId;
    ({ upto } = page);
  }
}
