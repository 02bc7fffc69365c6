/** Outbox functions for operators: status, scheduled messages, cancellation, replay. */
import { outboxFunctions, views } from "../../generated/ts/rows/outbox.js";
import type { Database } from "../store/index.js";
import { type Listing, listed } from "./listing.js";

/** Segment of the outbox table. */
interface OutboxSegment {
  readonly segment: number;
  /** True if new messages go to this segment. */
  readonly filling: boolean;
  readonly bytes: number;
  /** Time at which its first message was enqueued; null if it is empty. */
  readonly oldest: string | null;
}

/** Row of `hawser.outbox_status`: state of one kind of messages. Those for peers have no relay, position or segments. */
export interface OutboxOverview {
  readonly kind: "nats" | "peer";
  readonly relay: string | null;
  readonly isAwake: boolean;
  readonly waiting: number;
  readonly oldestWaitingAt: Date | null;
  readonly oldestWaitingFor: string | null;
  readonly positionSavedAt: Date | null;
  readonly segments: readonly OutboxSegment[];
  readonly later: number;
  readonly nextDueAt: Date | null;
  readonly deadLetters: number;
}

/** Message that is not due yet, or is held until others have been handled. */
export interface ScheduledMessage {
  readonly id: string;
  readonly kind: "nats" | "peer";
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
}

/** Filter of {@link listScheduled}. */
export interface ScheduledFilter extends Listing {
  readonly kind?: string | undefined;
  readonly destination?: string | undefined;
}

/** Messages to publish again: the arguments of `hawser.outbox_replay`. */
export interface ReplaySelection {
  readonly since: Date;
  readonly until?: Date | undefined;
  readonly subject?: string | undefined;
  readonly core: boolean;
}

/** Reads the state of the outbox. @throws HawserError as {@link Database.query} */
export function outboxOverview(database: Database): Promise<OutboxOverview[]> {
  return database.query<OutboxOverview>("read the state of the outbox", {
    text: `SELECT s.kind, s.relay, s.is_awake AS "isAwake", s.waiting::float8 AS waiting, s.oldest_waiting_at AS "oldestWaitingAt",
                  s.oldest_waiting_for AS "oldestWaitingFor", s.position_saved_at AS "positionSavedAt", s.segments,
                  s.later::float8 AS later, s.next_due_at AS "nextDueAt", s.dead_letters::float8 AS "deadLetters"
             FROM ${views.outboxStatus} AS s ORDER BY s.kind`,
  });
}

/** Lists scheduled messages, the next due first. @throws HawserError as {@link Database.query} */
export function listScheduled(database: Database, filter: ScheduledFilter): Promise<ScheduledMessage[]> {
  const { kind = null, destination = null, ...listing } = filter;
  const rows = `SELECT l.id::text AS id, l.kind, l.deliver_at AS "deliverAt", l.destination, l.key, l.message_id AS "messageId",
                       l.payload_bytes AS "payloadBytes", l.enqueued_at AS "enqueuedAt", l.priority, l.held_for AS "heldFor"
                  FROM ${views.outboxScheduled} AS l
                 WHERE ($1::text IS NULL OR l.kind = $1) AND ($2::text IS NULL OR l.destination = $2)`;
  const list = {
    rows,
    values: [kind, destination],
    names: ["l.destination", "l.key"],
    order: 'l."deliverAt", l.id::bigint',
  };
  return listed(database, "list the messages that are due later", list, listing);
}

/** Outcome of cancelling a message, as of `hawser.cancel`. */
export interface Cancelled {
  readonly id: string;
  readonly outcome: "cancelled" | "cancelling" | "not_waiting";
}

/** Messages to cancel: ids, or those of a topic; of a subject only what is due later. */
export interface CancelSelection {
  readonly ids: readonly bigint[];
  readonly destination?: string | undefined;
  readonly key?: string | undefined;
  /** Only messages that were enqueued before. */
  readonly before?: Date | undefined;
}

/** Number of messages that are cancelled per transaction. */
const cancelledMessages = 1_000;

/** Cancels messages, page by page, those of roles that the login is a member of. @throws HawserError as {@link Database.query} */
export async function* cancelMessages(database: Database, selection: CancelSelection): AsyncGenerator<Cancelled[]> {
  const { ids, destination, key = null, before = null } = selection;
  const functions = outboxFunctions(database.caller("cancel messages"));
  const outcome = (id: bigint, state: string): Cancelled => ({
    id: String(id),
    outcome: state as Cancelled["outcome"],
  });
  for (const id of ids) yield [outcome(id, (await functions.cancel({ id })).state)];
  if (destination === undefined) return;
  for (let after = -(2n ** 63n); ; ) {
    const page = await functions.cancelMessages({ destination, key, before, after, most: cancelledMessages });
    yield page.map(({ id, state }) => outcome(id, state));
    if (page.length < cancelledMessages) return;
    after = page.at(-1)!.id;
  }
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
