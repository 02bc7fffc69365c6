/**
 * The table of messages that were received and could not be run: whoever ends writes them there, and whoever leads runs them
 * first.
 */
import { notifyChannels, tables } from "../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../store/index.js";
import { storable } from "./dead-letter-writer.js";
import { failureOf } from "./executor/failure.js";
import type { FetchStep, Outcome } from "./lanes/index.js";
import { type InboundMessage, memoryOf } from "./message.js";

const { savedPageRows, maxBatchBytes, saveChunkBytes } = bridgeConstants;

/** A message, for one of the subscriptions that it was received for. */
export interface Unsaved {
  readonly subscription: bigint;
  readonly message: InboundMessage;
}

/** As for each batch. $1: the epoch. */
const fence = "fence AS MATERIALIZED (SELECT FROM hawser.fence_batch($1::bigint) AS f WHERE f.held)";

const sql = {
  // Those of subscriptions that have ended are forgotten with them.
  subscriptions: `
    WITH gone AS (
      DELETE FROM ${tables.savedMessage} AS s WHERE NOT EXISTS (SELECT FROM ${tables.natsHandler} AS h WHERE h.id = s.handler_id)
      RETURNING s.subject
    )
    SELECT DISTINCT s.handler_id AS id, (SELECT count(*)::int FROM gone) AS forgotten
      FROM ${tables.savedMessage} AS s JOIN ${tables.natsHandler} AS h ON h.id = s.handler_id`,
  fetch: `
    WITH ${fence},
    done AS (DELETE FROM ${tables.savedMessage} AS s USING fence WHERE s.handler_id = $2::bigint AND s.id <= $3::bigint),
    page AS (
      SELECT s.*, sum(octet_length(s.payload)) OVER (ORDER BY s.id) - octet_length(s.payload) AS bytes_before
        FROM ${tables.savedMessage} AS s WHERE s.handler_id = $2::bigint AND s.id > $3::bigint ORDER BY s.id LIMIT $4
    )
    SELECT f.held, p.id, p.subject, p.payload, p.headers, p.headers_problem AS "headersProblem", p.message_id AS "messageId"
      FROM (SELECT EXISTS (SELECT FROM fence) AS held) AS f LEFT JOIN page AS p ON p.bytes_before <= $5 ORDER BY p.id`,
  announce: `SELECT pg_notify('${notifyChannels.natsHandler}', '{}')`,
  done: `DELETE FROM ${tables.savedMessage} AS s WHERE s.handler_id = $1::bigint AND s.id <= $2::bigint`,
  save: `
    INSERT INTO ${tables.savedMessage} (handler_id, subject, payload, headers, headers_problem, message_id)
    SELECT m.handler_id, m.subject, m.payload, m.headers, m.headers_problem, m.message_id
      FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[])
           WITH ORDINALITY AS m (handler_id, subject, payload, headers, headers_problem, message_id, n)
      JOIN ${tables.natsHandler} AS h ON h.id = m.handler_id
     ORDER BY m.n`,
} as const;

interface PageRow {
  readonly held: boolean;
  /** NULL: the page has none. */
  readonly id: bigint | null;
  readonly subject: string;
  readonly payload: Buffer;
  readonly headers: string | null;
  readonly headersProblem: string | null;
  readonly messageId: string;
}

/** See above. */
export class SavedMessages {
  constructor(private readonly session: PostgresSession) {}

  /** The subscriptions that have some, and how many were forgotten with theirs. @throws what the session throws */
  async subscriptions(): Promise<{ readonly ids: ReadonlySet<bigint>; readonly forgotten: number }> {
    const rows = await this.session.query<{ id: bigint; forgotten: number }>(sql.subscriptions);
    return { ids: new Set(rows.map(({ id }) => id)), forgotten: rows[0]?.forgotten ?? 0 };
  }

  /** Deletes what is done, and reads the next page, as long as this process leads. Does not reject. */
  async fetch({ subscription, doneUpTo }: FetchStep, epoch: bigint): Promise<Outcome> {
    try {
      const values = [epoch, subscription.id, doneUpTo].map(String);
      const rows = await this.session.query<PageRow>(sql.fetch, [...values, savedPageRows, maxBatchBytes]);
      if (rows[0]?.held !== true) return { kind: "deposed" };
      const receivedAt = performance.now();
      const saved = rows.flatMap(({ id, subject, payload, headers, headersProblem, messageId }) => {
        if (id === null) return [];
        const text = { headers: headers ?? undefined, headersProblem: headersProblem ?? undefined };
        return [{ savedId: id, message: { id: messageId, subject, payload, ...text, receivedAt } }];
      });
      return { kind: "fetched", saved };
    } catch (cause) {
      const { kind, message } = failureOf(cause, 0, Number.POSITIVE_INFINITY);
      if (kind === "lost" || kind === "unavailable" || !this.session.isOpen) return { kind: "unavailable" };
      return { kind: "transient", error: { code: "XX000", message } };
    }
  }

  /** Tells the leader that there are more. @throws what the session throws */
  async announce(): Promise<void> {
    await this.session.query(sql.announce);
  }

  /** Deletes what is done of a subscription. @throws what the session throws */
  async done(subscription: bigint, upTo: bigint): Promise<void> {
    await this.session.query(sql.done, [String(subscription), String(upTo)]);
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
        await Promise.race([this.session.query(sql.save, valuesOf(piece), saveLimitMs), ended]);
      } catch (error) {
        return { saved, error };
      }
      saved += piece.length;
    }
    return { saved };
  }
}

/** The deadline ends it sooner. */
const saveLimitMs = 60_000;

function pieceOf(all: readonly Unsaved[], from: number): readonly Unsaved[] {
  let bytes = 0;
  let to = from;
  do bytes += memoryOf(all[to++]!.message);
  while (to < all.length && bytes + memoryOf(all[to]!.message) <= saveChunkBytes);
  return all.slice(from, to);
}

function valuesOf(piece: readonly Unsaved[]): unknown[] {
  return [
    piece.map(({ subscription }) => String(subscription)),
    piece.map(({ message }) => storable(message.subject)),
    piece.map(({ message }) => Buffer.from(message.payload)),
    piece.map(({ message: { headers } }) => (headers === undefined ? null : storable(headers))),
    piece.map(({ message: { headersProblem } }) => (headersProblem === undefined ? null : storable(headersProblem))),
    piece.map(({ message }) => message.id),
  ];
}
