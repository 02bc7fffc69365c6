/**
 * The table of messages that were received and could not be run: a process that ends writes them there, the leader writes what it has
 * no memory for, and the leader runs them first.
 */
import { notifyChannels, tables } from "../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import { storable } from "./dead-letters.js";
import { failureOf, packPayloads } from "./executor/index.js";
import { fenceSql } from "./leadership/index.js";
import { type InboundMessage, memoryOf, overheadBytes } from "./message.js";
import { type FetchStep, type Outcome, roleMayHold, type SpillStep } from "./queue/index.js";

const { savedPageRows, maxBatchBytes, saveChunkBytes, savedStatementMs } = bridgeConstants;

/** A message, for one of the subscriptions that it was received for. */
export interface Unsaved {
  readonly subscription: bigint;
  readonly message: InboundMessage;
}

/** What the table has of a subscription, as far as the process that leads knows. */
export interface SavedCounts {
  readonly messages: number;
  readonly bytes: number;
  /** When the oldest was saved, by `performance.now()`; undefined: there are none. */
  readonly oldestAt: number | undefined;
}

/** What became of messages that were to be written because there was little memory left. */
export type Spilled =
  | { readonly kind: "spilled"; readonly savedIds: readonly bigint[] }
  /** It is not known whether they are there. */
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "deposed" };

const table = tables.savedMessage;
const handlers = tables.natsHandler;
const sizeOf = (row: string) =>
  `(octet_length(${row}.payload) + octet_length(${row}.subject) + coalesce(octet_length(${row}.headers), 0) + ${overheadBytes})`;

/** Messages as {@link packedOf} makes them, from parameter `$n` on. */
const packedFrom = (n: number) => `
    SELECT m.handler_id, m.subject, substr($${n}::bytea, m.starts_at, m.bytes), m.headers, m.headers_problem, m.message_id
      FROM unnest($${n + 1}::bigint[], $${n + 2}::integer[], $${n + 3}::integer[], $${n + 4}::text[], $${n + 5}::text[], $${n + 6}::text[], $${n + 7}::text[])
           WITH ORDINALITY AS m (handler_id, starts_at, bytes, subject, headers, headers_problem, message_id, n)
      JOIN ${handlers} AS h ON h.id = m.handler_id`;

const ageOf = (savedAt: string) => `(extract(epoch FROM clock_timestamp() - ${savedAt}) * 1000)::float8`;

const insertInto = `INSERT INTO ${table} (handler_id, subject, payload, headers, headers_problem, message_id)`;

const sql = {
  // Those of subscriptions that have ended are forgotten with them.
  begin: `
    WITH gone AS (
      DELETE FROM ${table} AS s WHERE NOT EXISTS (SELECT FROM ${handlers} AS h WHERE h.id = s.handler_id)
      RETURNING s.subject
    )
    SELECT g.forgotten, s.id, s.messages, s.bytes, ${ageOf("s.oldest")} AS "ageMs"
      FROM (SELECT count(*)::float8 AS forgotten FROM gone) AS g
      LEFT JOIN (SELECT t.handler_id AS id, count(*)::float8 AS messages, sum(${sizeOf("t")})::float8 AS bytes, min(t.saved_at) AS oldest
                   FROM ${table} AS t JOIN ${handlers} AS h ON h.id = t.handler_id GROUP BY t.handler_id) AS s ON true`,
  present: `SELECT h.id FROM ${handlers} AS h WHERE EXISTS (SELECT FROM ${table} AS s WHERE s.handler_id = h.id)`,
  count: `
    SELECT count(*)::float8 AS messages, coalesce(sum(${sizeOf("t")}), 0)::float8 AS bytes, ${ageOf("min(t.saved_at)")} AS "ageMs"
      FROM ${table} AS t WHERE t.handler_id = $1::bigint`,
  forget: `
    WITH gone AS (DELETE FROM ${table} AS s WHERE s.handler_id = ANY ($1::bigint[]) RETURNING s.subject)
    SELECT count(*)::float8 AS forgotten FROM gone`,
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
  announce: `SELECT pg_notify('${notifyChannels.natsHandler}', '{}')`,
  save: `${insertInto} ${packedFrom(1)} ORDER BY m.n`,
} as const;

interface PageRow {
  readonly held: boolean;
  /** What was deleted. */
  readonly messages: number;
  readonly bytes: number;
  /** NULL: the page has none. */
  readonly id: bigint | null;
  readonly subject: string;
  readonly payload: Buffer;
  readonly headers: string | null;
  readonly headersProblem: string | null;
  readonly messageId: string;
  readonly ageMs: number;
}

interface BeginRow {
  readonly forgotten: number;
  /** NULL: there are none. */
  readonly id: bigint | null;
  readonly messages: number;
  readonly bytes: number;
  readonly ageMs: number;
}

export class SavedMessages {
  readonly #session: PostgresSession;
  readonly #limitBytes: number;
  /** As long as this process leads. */
  #counts = new Map<bigint, SavedCounts>();
  /** Subscriptions of which it is not known whether the last messages are there. */
  readonly #doubtful = new Set<bigint>();

  /** @param limitBytes for what is written because there is little memory left; 0: nothing is */
  constructor(session: PostgresSession, limitBytes: number) {
    this.#session = session;
    this.#limitBytes = limitBytes;
  }

  /** What the table has of a subscription, if this process leads. */
  countsOf(subscription: bigint): SavedCounts {
    return this.#counts.get(subscription) ?? { messages: 0, bytes: 0, oldestAt: undefined };
  }

  /**
   * How many bytes more of each role may be written because there is little memory left. The last quarter of the room is
   * divided among the roles, as in memory.
   *
   * @param roles the subscriptions of each
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

  /** This process leads no more. */
  end(): void {
    this.#counts.clear();
    this.#doubtful.clear();
  }

  /**
   * This process is about to lead.
   *
   * @returns the subscriptions that have some, and how many were forgotten with theirs
   * @throws what the session throws
   */
  async begin(): Promise<{ readonly ids: ReadonlySet<bigint>; readonly forgotten: number }> {
    const rows = await this.#session.query<BeginRow>(sql.begin, [], savedStatementMs);
    const present = rows.flatMap(({ id, messages, bytes, ageMs }) =>
      id === null ? [] : [[id, { messages, bytes, oldestAt: performance.now() - ageMs }] as const],
    );
    this.#counts = new Map(present);
    return { ids: new Set(this.#counts.keys()), forgotten: rows[0]!.forgotten };
  }

  /** The subscriptions that have some. @throws what the session throws */
  async present(): Promise<ReadonlySet<bigint>> {
    const rows = await this.#session.query<{ id: bigint }>(sql.present);
    for (const { id } of rows) {
      // Another process has saved them.
      if (!this.#counts.has(id)) await this.#count(id);
    }
    return new Set(rows.map(({ id }) => id));
  }

  /** These subscriptions have ended. @returns how many messages were forgotten with them. @throws what the session throws */
  async forget(subscriptions: readonly bigint[]): Promise<number> {
    for (const id of subscriptions) this.#counts.delete(id);
    const [row] = await this.#session.query<{ forgotten: number }>(
      sql.forget,
      [integers(subscriptions)],
      savedStatementMs,
    );
    return row!.forgotten;
  }

  /** Reads the next page, as long as this process leads. Does not reject. */
  async fetch({ subscription, done }: FetchStep, epoch: bigint): Promise<Outcome> {
    try {
      const values = [String(epoch), String(subscription.id), integers(done), savedPageRows, maxBatchBytes];
      const rows = await this.#session.query<PageRow>(sql.fetch, values);
      const [{ held, messages, bytes, id: first, ageMs }] = rows as [PageRow];
      if (!held) return { kind: "deposed" };
      if (first === null) this.#counts.delete(subscription.id);
      else this.#add(subscription.id, -messages, -bytes, performance.now() - ageMs);
      const receivedAt = performance.now();
      const saved = rows.flatMap(({ id, subject, payload, headers, headersProblem, messageId }) => {
        if (id === null) return [];
        const text = { headers: headers ?? undefined, headersProblem: headersProblem ?? undefined };
        return [{ savedId: id, message: { id: messageId, subject, payload, ...text, receivedAt } }];
      });
      return { kind: "fetched", saved };
    } catch (cause) {
      const { kind, message } = failureOf(cause, 0, Number.POSITIVE_INFINITY);
      if (kind === "lost" || kind === "unavailable" || !this.#session.isUp) return { kind: "unavailable" };
      return { kind: "transient", error: { code: "XX000", message } };
    }
  }

  /** Writes messages of a queue behind what the table has, as long as this process leads. Does not reject. */
  async spill({ subscription: { id }, messages }: SpillStep, epoch: bigint): Promise<Spilled> {
    try {
      for (const each of this.#doubtful) await this.#count(each);
      const piece = messages.map((message) => ({ subscription: id, message }));
      const values = [String(epoch), ...packedOf(piece)];
      const [row] = await this.#session.query<{ held: boolean; ids: string | null; bytes: number }>(
        sql.spill,
        values,
        savedStatementMs,
      );
      const { held, ids, bytes } = row!;
      if (!held) return { kind: "deposed" };
      if (ids === null) return { kind: "failed", error: new Error("the subscription has ended") };
      this.#add(id, messages.length, bytes, this.countsOf(id).oldestAt ?? performance.now());
      return { kind: "spilled", savedIds: ids.split(",").map(BigInt) };
    } catch (error) {
      this.#doubtful.add(id);
      return { kind: "failed", error };
    }
  }

  /** Tells the leader that there are more. @throws what the session throws */
  async announce(): Promise<void> {
    await this.#session.query(sql.announce);
  }

  /** Messages were deleted from the table in the transaction that has handled them. */
  finished(subscription: bigint, messages: readonly InboundMessage[]): void {
    if (messages.length === 0) return;
    const bytes = messages.reduce((sum, message) => sum + storedBytes(message), 0);
    this.#add(subscription, -messages.length, -bytes, this.countsOf(subscription).oldestAt ?? performance.now());
  }

  /**
   * Saves messages, in their order, in pieces that are each saved or not. Those of a subscription that has ended are left out.
   *
   * @param deadline ends it, also where Postgres does not answer
   * @returns how many were saved, from the first on
   */
  async save(
    all: readonly Unsaved[],
    deadline: AbortSignal,
  ): Promise<{ readonly saved: number; readonly error?: unknown }> {
    let saved = 0;
    const ended = new Promise<never>((_, reject) => {
      deadline.addEventListener("abort", () => reject(new Error("there was no more time")), { once: true });
    });
    // Nobody may wait for it.
    ended.catch(() => undefined);
    while (saved < all.length) {
      const piece = pieceOf(all, saved);
      try {
        deadline.throwIfAborted();
        await Promise.race([this.#session.query(sql.save, packedOf(piece), savedStatementMs), ended]);
      } catch (error) {
        return { saved, error };
      }
      saved += piece.length;
    }
    return { saved };
  }

  async #count(subscription: bigint): Promise<void> {
    const [row] = await this.#session.query<BeginRow>(sql.count, [String(subscription)], savedStatementMs);
    const { messages, bytes, ageMs } = row!;
    this.#counts.set(subscription, {
      messages,
      bytes,
      oldestAt: messages === 0 ? undefined : performance.now() - ageMs,
    });
    this.#doubtful.delete(subscription);
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

/** As the table counts it. */
function storedBytes({ subject, payload, headers }: InboundMessage): number {
  return payload.length + Buffer.byteLength(subject) + Buffer.byteLength(headers ?? "") + overheadBytes;
}

function pieceOf(all: readonly Unsaved[], from: number): readonly Unsaved[] {
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

/** An array of integers, as Postgres reads it. */
function integers(values: readonly (number | bigint)[]): string {
  return `{${values.join(",")}}`;
}
