/**
 * The table of saved messages: messages from NATS that were received and could not be run. The leader writes them when
 * memory is nearly full, a process when it shuts down, and a process that does not lead when it has messages that the
 * leader has not received. The leader runs saved messages before newer ones.
 */
import { notifyChannels, tables } from "../../../generated/ts/rows/nats.js";
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../../foundation/postgres/index.js";
import { unlessAborted } from "../../foundation/runtime/index.js";
import { storable } from "./dead-letters.js";
import { failureOf, packPayloads } from "./executor/index.js";
import { fenceSql } from "./leadership/index.js";
import { type InboundMessage, memoryOf, overheadBytes } from "./message.js";
import { type FetchStep, type Outcome, queueDefaults, roleMayHold, type SpillStep } from "./queue/index.js";

/** Number of saved messages of a subscription that are read at once. */
const savedPageRows = 1_000;
/**
 * The part of `bufferBytes`, as a divisor, that they may take: they are in memory until they have run, however full it
 * is, and cannot be saved again to make room for others.
 */
const savedPageDivisor = 32;
/** Bytes of messages that one statement saves. */
export const saveChunkBytes = 4 * 1024 * 1024;
/** Time limit for a statement with many saved messages; the deadline of a stop may end it sooner. */
const savedStatementMs = 60_000;

/** A message to save for one of its subscriptions. */
export interface Unsaved {
  readonly subscription: bigint;
  readonly message: InboundMessage;
}

/** Saved messages of a subscription, as the leader counts them. */
export interface SavedCounts {
  readonly messages: number;
  readonly bytes: number;
  /** Time at which the oldest was saved (`performance.now()`, ms); undefined if there are none. */
  readonly oldestAt: number | undefined;
}

/** Result of spilling messages. */
export type Spilled =
  | { readonly kind: "spilled"; readonly savedIds: readonly bigint[] }
  /** The messages may or may not be in the table. */
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "deposed" };

const table = tables.savedMessage;
const handlers = tables.natsHandler;
const sizeOf = (row: string) =>
  `(octet_length(${row}.payload) + octet_length(${row}.subject) + coalesce(octet_length(${row}.headers), 0) + ${overheadBytes})`;

/** SELECT that unpacks the parameters of {@link packedOf}; `$n` is the first of them. */
const packedFrom = (n: number) => `
    SELECT m.handler_id, m.subject, substr($${n}::bytea, m.starts_at, m.bytes), m.headers, m.headers_problem, m.message_id
      FROM unnest($${n + 1}::bigint[], $${n + 2}::integer[], $${n + 3}::integer[], $${n + 4}::text[], $${n + 5}::text[], $${n + 6}::text[], $${n + 7}::text[])
           WITH ORDINALITY AS m (handler_id, starts_at, bytes, subject, headers, headers_problem, message_id, n)
      JOIN ${handlers} AS h ON h.id = m.handler_id`;

const ageOf = (savedAt: string) => `(extract(epoch FROM clock_timestamp() - ${savedAt}) * 1000)::float8`;

const insertInto = `INSERT INTO ${table} (handler_id, subject, payload, headers, headers_problem, message_id)`;

const sql = {
  // Messages of subscriptions that have ended are deleted.
  startLeading: `
    WITH gone AS (
      DELETE FROM ${table} AS s WHERE NOT EXISTS (SELECT FROM ${handlers} AS h WHERE h.id = s.handler_id)
      RETURNING s.subject
    )
    SELECT g.deleted, s.id, s.messages, s.bytes, ${ageOf("s.oldest")} AS "ageMs"
      FROM (SELECT count(*)::float8 AS deleted FROM gone) AS g
      LEFT JOIN (SELECT t.handler_id AS id, count(*)::float8 AS messages, sum(${sizeOf("t")})::float8 AS bytes, min(t.saved_at) AS oldest
                   FROM ${table} AS t JOIN ${handlers} AS h ON h.id = t.handler_id GROUP BY t.handler_id) AS s ON true`,
  count: `
    SELECT count(*)::float8 AS messages, coalesce(sum(${sizeOf("t")}), 0)::float8 AS bytes, ${ageOf("min(t.saved_at)")} AS "ageMs"
      FROM ${table} AS t WHERE t.handler_id = $1::bigint`,
  deleteOf: `
    WITH gone AS (DELETE FROM ${table} AS s WHERE s.handler_id = ANY ($1::bigint[]) RETURNING s.subject)
    SELECT count(*)::float8 AS deleted FROM gone`,
  fetch: `
    WITH ${fenceSql},
    done AS (
      DELETE FROM ${table} AS s USING fence WHERE s.handler_id = $2::bigint AND s.id = ANY ($3::bigint[])
      RETURNING ${sizeOf("s")} AS size
    ),
    page AS (
      SELECT s.*, sum(octet_length(s.payload)) OVER (ORDER BY s.id) - octet_length(s.payload) AS bytes_before
        FROM ${table} AS s WHERE s.handler_id = $2::bigint AND s.id <> ALL ($3::bigint[]) ORDER BY s.id LIMIT $4
    )
    SELECT f.held, d.messages, d.bytes, p.id, p.subject, p.payload, p.headers, p.headers_problem AS "headersProblem", p.message_id AS "messageId",
           ${ageOf("p.saved_at")} AS "ageMs"
      FROM (SELECT EXISTS (SELECT FROM fence) AS held) AS f
     CROSS JOIN (SELECT count(*)::float8 AS messages, coalesce(sum(size), 0)::float8 AS bytes FROM done) AS d
      LEFT JOIN page AS p ON p.bytes_before <= $5 ORDER BY p.id`,
  spill: `
    WITH ${fenceSql},
    saved AS (
      ${insertInto} ${packedFrom(2)} CROSS JOIN fence ORDER BY m.n
      RETURNING id, ${sizeOf("saved_messages")} AS size
    )
    SELECT EXISTS (SELECT FROM fence) AS held, array_to_string(array_agg(s.id ORDER BY s.id), ',') AS ids,
           coalesce(sum(s.size), 0)::float8 AS bytes FROM saved AS s`,
  notify: `SELECT pg_notify('${notifyChannels.natsHandler}', '{}')`,
  save: `${insertInto} ${packedFrom(1)} ORDER BY m.n`,
} as const;

interface PageRow {
  readonly held: boolean;
  /** Count of deleted messages. */
  readonly messages: number;
  readonly bytes: number;
  /** NULL if the page is empty. */
  readonly id: bigint | null;
  readonly subject: string;
  readonly payload: Buffer;
  readonly headers: string | null;
  readonly headersProblem: string | null;
  readonly messageId: string;
  readonly ageMs: number;
}

interface BeginRow {
  readonly deleted: number;
  /** NULL if the table is empty. */
  readonly id: bigint | null;
  readonly messages: number;
  readonly bytes: number;
  readonly ageMs: number;
}

export class SavedMessages {
  readonly #session: PostgresSession;
  readonly #limitBytes: number;
  readonly #pageBytes: number;
  /** Counts by subscription; empty unless this process is the leader. */
  #counts = new Map<bigint, SavedCounts>();
  /** Subscriptions that must be counted again, because the result of their last write is unknown. */
  readonly #uncounted = new Set<bigint>();

  /** @param settings `savedBytes`: size of all saved messages above which none are spilled; 0 to spill none at all */
  constructor(
    session: PostgresSession,
    { savedBytes, bufferBytes }: Pick<ServeSettings, "savedBytes" | "bufferBytes">,
  ) {
    this.#session = session;
    this.#limitBytes = savedBytes;
    this.#pageBytes = Math.min(queueDefaults.maxBatchBytes, Math.floor(bufferBytes / savedPageDivisor));
  }

  /** Saved messages of a subscription; zeros unless this process is the leader. */
  countsOf(subscription: bigint): SavedCounts {
    return this.#counts.get(subscription) ?? { messages: 0, bytes: 0, oldestAt: undefined };
  }

  /**
   * Bytes that each role may still spill. The last quarter of the limit is divided among the roles, as it is in memory.
   *
   * @param roles subscriptions of each role
   */
  roomBytes(roles: ReadonlyMap<string, readonly bigint[]>): ReadonlyMap<string, number> {
    let left = this.#limitBytes;
    for (const { bytes } of this.#counts.values()) left -= bytes;
    return new Map(
      [...roles].map(([role, ids]) => {
        const held = ids.reduce((sum, id) => sum + this.countsOf(id).bytes, 0);
        return [role, roleMayHold(this.#limitBytes, roles.size, held, left) - held];
      }),
    );
  }

  /** Forgets all counts, since this process is no longer the leader. */
  stopLeading(): void {
    this.#counts.clear();
    this.#uncounted.clear();
  }

  /**
   * Counts the saved messages before this process starts to run messages as the leader, and deletes those of
   * subscriptions that have ended.
   *
   * @returns subscriptions that have saved messages, and the number of deleted messages
   * @throws errors of the session
   */
  async startLeading(): Promise<{ readonly ids: ReadonlySet<bigint>; readonly deleted: number }> {
    const rows = await this.#session.query<BeginRow>(sql.startLeading, [], savedStatementMs);
    const counted = rows.flatMap(({ id, messages, bytes, ageMs }) =>
      id === null ? [] : [[id, { messages, bytes, oldestAt: performance.now() - ageMs }] as const],
    );
    this.#counts = new Map(counted);
    return { ids: new Set(this.#counts.keys()), deleted: rows[0]!.deleted };
  }

  /** Counts the messages of subscriptions that have got them from other processes. @throws errors of the session */
  async countOf(subscriptions: readonly bigint[]): Promise<void> {
    for (const id of subscriptions) if (!this.#counts.has(id)) await this.#recount(id);
  }

  /**
   * Deletes the messages of subscriptions that have ended.
   *
   * @returns number of deleted messages
   * @throws errors of the session
   */
  async deleteOf(subscriptions: readonly bigint[]): Promise<number> {
    for (const id of subscriptions) this.#counts.delete(id);
    const [row] = await this.#session.query<{ deleted: number }>(
      sql.deleteOf,
      [integers(subscriptions)],
      savedStatementMs,
    );
    return row!.deleted;
  }

  /** Reads the next page of saved messages, if this process is still the leader. Does not reject. */
  async fetch({ subscription, done }: FetchStep, epoch: bigint): Promise<Outcome> {
    try {
      const values = [String(epoch), String(subscription.id), integers(done), savedPageRows, this.#pageBytes];
      const rows = await this.#session.query<PageRow>(sql.fetch, values);
      const [{ held, messages, bytes, id: first, ageMs }] = rows as [PageRow];
      if (!held) return { kind: "deposed" };
      if (first === null) this.#counts.delete(subscription.id);
      else this.#add(subscription.id, -messages, -bytes, performance.now() - ageMs);
      const receivedAt = performance.now();
      const saved = rows.flatMap(({ id, subject, payload, headers, headersProblem, messageId }) => {
        if (id === null) return [];
        const text = headersOf(headers, headersProblem);
        return [{ savedId: id, message: { id: messageId, subject, payload, ...text, receivedAt } }];
      });
      return { kind: "fetched", saved };
    } catch (cause) {
      const { kind, message } = failureOf(cause, 0, Number.POSITIVE_INFINITY);
      if (kind === "lost" || kind === "unavailable" || !this.#session.isUp) return { kind: "unavailable" };
      return { kind: "transient", error: { code: "XX000", message } };
    }
  }

  /** Appends messages of a queue to the table, if this process is still the leader. Does not reject. */
  async spill({ subscription: { id }, messages }: SpillStep, epoch: bigint): Promise<Spilled> {
    try {
      for (const each of this.#uncounted) await this.#recount(each);
      const piece = messages.map((message) => ({ subscription: id, message }));
      const values = [String(epoch), ...packedOf(piece)];
      const [row] = await this.#session.query<{ held: boolean; ids: string | null; bytes: number }>(
        sql.spill,
        values,
        savedStatementMs,
      );
      const { held, ids, bytes } = row!;
      if (!held) return { kind: "deposed" };
      if (ids === null) return { kind: "failed", error: new Error(`subscription ${id} has ended`) };
      this.#add(id, messages.length, bytes, this.countsOf(id).oldestAt ?? performance.now());
      return { kind: "spilled", savedIds: ids.split(",").map(BigInt) };
    } catch (error) {
      this.#uncounted.add(id);
      return { kind: "failed", error };
    }
  }

  /** Notifies the leader of new saved messages. @throws errors of the session */
  async notifyLeader(): Promise<void> {
    await this.#session.query(sql.notify);
  }

  /** Updates the counts after the transaction that handled these messages deleted them. */
  noteDeleted(subscription: bigint, messages: readonly InboundMessage[]): void {
    if (messages.length === 0) return;
    const bytes = messages.reduce((sum, message) => sum + storedBytes(message), 0);
    this.#add(subscription, -messages.length, -bytes, this.countsOf(subscription).oldestAt ?? performance.now());
  }

  /**
   * Saves messages in order, one chunk per statement. Skips messages of subscriptions that have ended. Does not reject.
   *
   * @param deadline ends the call even if Postgres does not answer
   * @returns number of messages that were saved, counted from the first; the error that prevented the others
   */
  async save(
    all: readonly Unsaved[],
    deadline: AbortSignal,
  ): Promise<{ readonly saved: number; readonly error?: unknown }> {
    let saved = 0;
    while (saved < all.length) {
      const piece = chunkFrom(all, saved);
      try {
        deadline.throwIfAborted();
        await unlessAborted(this.#session.query(sql.save, packedOf(piece), savedStatementMs), deadline);
      } catch (error) {
        return { saved, error };
      }
      saved += piece.length;
    }
    return { saved };
  }

  async #recount(subscription: bigint): Promise<void> {
    const [row] = await this.#session.query<BeginRow>(sql.count, [String(subscription)], savedStatementMs);
    const { messages, bytes, ageMs } = row!;
    this.#counts.set(subscription, {
      messages,
      bytes,
      oldestAt: messages === 0 ? undefined : performance.now() - ageMs,
    });
    this.#uncounted.delete(subscription);
  }

  #add(subscription: bigint, messages: number, bytes: number, oldestAt: number): void {
    const before = this.countsOf(subscription);
    this.#counts.set(subscription, {
      messages: Math.max(0, before.messages + messages),
      bytes: Math.max(0, before.bytes + bytes),
      oldestAt,
    });
  }
}

/** Headers of a saved message. Every member of `hawser_bridge` can write the row: what breaks the rule cannot be read. */
function headersOf(headers: string | null, problem: string | null): Pick<InboundMessage, "headers" | "headersProblem"> {
  if (headers === null || isHeadersJson(headers))
    return { headers: headers ?? undefined, headersProblem: problem ?? undefined };
  return { headers: undefined, headersProblem: "the saved row has no JSON object of lists of strings" };
}

function isHeadersJson(text: string): boolean {
  try {
    const parsed: unknown = JSON.parse(text);
    const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
    const isText = (value: unknown) => typeof value === "string";
    return isObject && Object.values(parsed).every((values) => Array.isArray(values) && values.every(isText));
  } catch {
    return false;
  }
}

/** Size of a message as `sizeOf` computes it in SQL. */
function storedBytes({ subject, payload, headers }: InboundMessage): number {
  return payload.length + Buffer.byteLength(subject) + Buffer.byteLength(headers ?? "") + overheadBytes;
}

function chunkFrom(all: readonly Unsaved[], from: number): readonly Unsaved[] {
  let bytes = 0;
  let to = from;
  do bytes += memoryOf(all[to++]!.message);
  while (to < all.length && bytes + memoryOf(all[to]!.message) <= saveChunkBytes);
  return all.slice(from, to);
}

function packedOf(piece: readonly Unsaved[]): unknown[] {
  const [payloads, offsets, lengths] = packPayloads(piece.map(({ message }) => message));
  return [
    payloads,
    integers(piece.map(({ subscription }) => subscription)),
    offsets,
    lengths,
    piece.map(({ message }) => storable(message.subject)),
    piece.map(({ message: { headers } }) => (headers === undefined ? null : storable(headers))),
    piece.map(({ message: { headersProblem } }) => (headersProblem === undefined ? null : storable(headersProblem))),
    piece.map(({ message }) => message.id),
  ];
}

/** Postgres array literal of integers. */
function integers(values: readonly (number | bigint)[]): string {
  return `{${values.join(",")}}`;
}
