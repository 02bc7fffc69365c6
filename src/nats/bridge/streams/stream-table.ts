/** Table of stream subscriptions in Postgres, which the leader reads and writes. */
import pg from "pg";
import { tables } from "../../../../generated/ts/rows/nats.js";
import type { PostgresSession } from "../../../foundation/postgres/index.js";
import { fenceSql } from "../leadership/index.js";
import { multirangeOf, rangesOf } from "../ranges.js";
import type { NoteStep, RecordStep, Start, StreamState } from "./reader.js";

const table = tables.streamSubscription;

const lockNotAvailable = "55P03";

/** Stream and filters of a subscription. */
export interface StreamConfig {
  /** Id of the binding. */
  readonly id: bigint;
  readonly name: string;
  readonly stream: string;
  readonly domain: string | undefined;
  readonly filters: readonly string[];
  readonly keyToken: number | undefined;
  /** Prefix of the names of the subscription's consumers in NATS. */
  readonly consumer: string;
}

/** State of a subscription. */
export interface StreamRow extends StreamConfig {
  readonly generation: bigint;
  /** Start time of the Postgres server that the row was read from. */
  readonly server: string;
  readonly position: number | undefined;
  /** Messages gone before they were taken, without those that are `overwritten`. */
  readonly missing: number;
  readonly lag: number | undefined;
}

// NOWAIT: a role that has called nats_seek_stream in an open transaction must not block the bridge's session.
const freeSql = `free AS MATERIALIZED (SELECT FROM ${table} AS s WHERE s.handler_id = $2::bigint FOR UPDATE NOWAIT)`;

/** Start time of the server, as in {@link ExecutorSession.serverStartedAt}. */
const serverSql = "extract(epoch FROM pg_postmaster_start_time())::text";

/** Row that may be written, with the reason to write: what may have been replaced neither hides losses nor adds to them. */
const freeForReasonSql = `free AS MATERIALIZED (
      SELECT CASE WHEN $13::text = 'overwritten' AND s.missing_reason <> 'overwritten' THEN NULL ELSE $13::text END AS reason
        FROM ${table} AS s WHERE s.handler_id = $2::bigint FOR UPDATE NOWAIT)`;

const sql = {
  all: `
    SELECT s.handler_id AS id, s.name, s.stream, s.domain, s.filters, s.key_token AS "keyToken", s.consumer, s.generation, ${serverSql} AS server,
           s.position::float8 AS position, CASE WHEN s.missing_reason = 'overwritten' THEN 0 ELSE s.missing END::float8 AS missing, s.lag::float8 AS lag
      FROM ${table} AS s ORDER BY s.handler_id`,
  // The increment is random, so that after a failover that lost the last commit, no two processes use the same
  // generation.
  take: `
    WITH ${fenceSql}, ${freeSql}
    UPDATE ${table} AS s
       SET generation = s.generation + 1 + floor(random() * 1048576)::bigint, turn = s.turn + 1
      FROM fence, free WHERE s.handler_id = $2::bigint
    RETURNING s.generation, ${serverSql} AS server, s.start, s.stream_created AS created, s.position::float8 AS position, s.done,
              s.last_done::float8 AS "lastDone", s.last_done_at AS "lastDoneAt", s.nothing_until::float8 AS "nothingUntil", s.paused, s.problem`,
  record: `
    WITH ${fenceSql}, ${freeForReasonSql}
    UPDATE ${table} AS s
       SET turn = s.turn + 1, stream_created = $5::text, position = $6::bigint, done = $7::int8multirange, last_done = $8::bigint,
           last_done_at = $9::bigint, nothing_until = $10::bigint, paused = $11::boolean, problem = $12::text, written_at = clock_timestamp(),
           missing = CASE WHEN s.missing_reason = 'overwritten' AND $13::text <> 'overwritten' THEN 0 ELSE s.missing END
             + CASE WHEN free.reason IS NULL THEN 0 ELSE $14::bigint END,
           missing_reason = coalesce(free.reason, s.missing_reason),
           missing_from = CASE WHEN free.reason IS NULL THEN s.missing_from ELSE $15::bigint END,
           missing_to = CASE WHEN free.reason IS NULL THEN s.missing_to ELSE $16::bigint END,
           missing_at = CASE WHEN free.reason IS NULL THEN s.missing_at ELSE clock_timestamp() END
      FROM fence, free WHERE s.handler_id = $2::bigint AND s.generation = $3::bigint AND ${serverSql} = $4::text
    RETURNING s.generation`,
  note: `
    WITH ${fenceSql}, ${freeSql}
    UPDATE ${table} AS s
       SET lag = $5::bigint, nothing_until = greatest(s.nothing_until, $6::bigint), written_at = clock_timestamp()
      FROM fence, free WHERE s.handler_id = $2::bigint AND s.generation = $3::bigint AND ${serverSql} = $4::text
    RETURNING s.generation`,
} as const;

interface TakenRow {
  readonly generation: bigint;
  readonly server: string;
  readonly start: string;
  readonly created: string | null;
  readonly position: number | null;
  readonly done: string;
  readonly lastDone: number | null;
  readonly lastDoneAt: bigint | null;
  readonly nothingUntil: number;
  readonly paused: boolean;
  readonly problem: string | null;
}

export class StreamTable {
  readonly #session: PostgresSession;

  constructor(session: PostgresSession) {
    this.#session = session;
  }

  /** All stream subscriptions. @throws errors of the session */
  async all(): Promise<StreamRow[]> {
    const rows = await this.#session.query<StreamRow & Record<string, unknown>>(sql.all);
    return rows.map((row) => ({
      ...row,
      domain: row.domain ?? undefined,
      keyToken: row.keyToken ?? undefined,
      position: row.position ?? undefined,
      lag: row.lag ?? undefined,
    }));
  }

  /**
   * Starts a new generation, so that no batch of an earlier generation can commit. Returns undefined if the row is gone
   * or another process is the leader.
   */
  async take(id: bigint, epoch: bigint): Promise<StreamState | undefined> {
    const [row] = await this.#session.query<TakenRow>(sql.take, [String(epoch), String(id)]);
    if (row === undefined) return undefined;
    const { lastDone, lastDoneAt } = row;
    return {
      generation: row.generation,
      server: row.server,
      start: startOf(row.start),
      created: row.created ?? undefined,
      position: row.position ?? undefined,
      done: rangesOf(row.done),
      lastDone: lastDone === null || lastDoneAt === null ? undefined : { number: lastDone, at: lastDoneAt },
      nothingUntil: row.nothingUntil,
      paused: row.paused,
      problem: row.problem ?? undefined,
    };
  }

  /**
   * Writes the state of a subscription.
   *
   * @returns false if nothing was written: the row has another generation or is on another server, which may lack
   * earlier writes, or another process is the leader
   */
  async record(id: bigint, { state, missing }: RecordStep, epoch: bigint): Promise<boolean> {
    const rows = await this.#session.query(sql.record, [
      ...[String(epoch), String(id), String(state.generation), state.server],
      ...[state.created ?? null, state.position ?? null],
      ...[multirangeOf(state.done), state.lastDone?.number ?? null, state.lastDone && String(state.lastDone.at)],
      ...[state.nothingUntil, state.paused, state.problem ?? null],
      ...[missing?.reason ?? null, missing?.count ?? 0, missing?.from ?? null, missing?.to ?? null],
    ]);
    return rows.length > 0;
  }

  /** Writes lag and `nothingUntil`. @returns the same as {@link record}; "busy" if a batch has locked the row */
  async note(id: bigint, step: NoteStep, epoch: bigint): Promise<boolean | "busy"> {
    const { generation, server, lag, nothingUntil } = step;
    const values = [String(epoch), String(id), String(generation), server, lag, nothingUntil];
    try {
      return (await this.#session.query(sql.note, values)).length > 0;
    } catch (error) {
      if (error instanceof pg.DatabaseError && error.code === lockNotAvailable) return "busy";
      throw error;
    }
  }
}

function startOf(text: string): Start {
  if (text === "all") return { all: true };
  return /^\d+$/.test(text) ? { number: Number(text) } : { time: text };
}
