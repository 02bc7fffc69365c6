/**
 * The subscriptions to streams in Postgres, for the process that leads.
 */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import type { PostgresSession } from "../../postgres/index.js";
import { fenceSql } from "../leadership/index.js";
import { multirangeOf, rangesOf } from "../ranges.js";
import type { NoteStep, RecordStep, Start, StreamState } from "./reader.js";

const table = tables.streamSubscription;

/** SQLSTATE */
const lockNotAvailable = "55P03";

/** What a subscription takes messages from. */
export interface StreamConfig {
  /** Of its handler. */
  readonly id: bigint;
  readonly name: string;
  readonly stream: string;
  readonly domain: string | undefined;
  readonly filters: readonly string[];
  readonly keyToken: number | undefined;
  /** What the names of its consumers begin with. */
  readonly consumer: string;
}

/** How a subscription stands. */
export interface StreamRow extends StreamConfig {
  readonly generation: bigint;
  /** Start time of the Postgres server that has it. */
  readonly server: string;
  readonly position: number | undefined;
  readonly missing: number;
  readonly lag: number | undefined;
}

// A role that has sought its subscription, and leaves the transaction open, holds up nobody else: the session is the bridge's.
const freeSql = `free AS MATERIALIZED (SELECT FROM ${table} AS s WHERE s.handler_id = $2::bigint FOR UPDATE NOWAIT)`;

/** Start time of the server, as {@link ExecutorSession.serverStartedAt}. */
const serverSql = "extract(epoch FROM pg_postmaster_start_time())::text";

const sql = {
  all: `
    SELECT s.handler_id AS id, s.name, s.stream, s.domain, s.filters, s.key_token AS "keyToken", s.consumer, s.generation, ${serverSql} AS server,
           s.position::float8 AS position, s.missing::float8 AS missing, s.lag::float8 AS lag
      FROM ${table} AS s ORDER BY s.handler_id`,
  // The step is of random size: a failover may lose the commit of a process that goes on, or of another one.
  take: `
    WITH ${fenceSql}, ${freeSql}
    UPDATE ${table} AS s
       SET generation = s.generation + 1 + floor(random() * 1048576)::bigint, turn = s.turn + 1
      FROM fence, free WHERE s.handler_id = $2::bigint
    RETURNING s.generation, ${serverSql} AS server, s.start, s.stream_created AS created, s.position::float8 AS position, s.done,
              s.last_done::float8 AS "lastDone", s.last_done_at AS "lastDoneAt", s.nothing_until::float8 AS "nothingUntil", s.paused, s.problem`,
  record: `
    WITH ${fenceSql}, ${freeSql}
    UPDATE ${table} AS s
       SET turn = s.turn + 1, stream_created = $5::text, position = $6::bigint, done = $7::int8multirange, last_done = $8::bigint,
           last_done_at = $9::bigint, nothing_until = $10::bigint, paused = $11::boolean, problem = $12::text, written_at = clock_timestamp(),
           missing = s.missing + $14::bigint,
           missing_reason = coalesce($13::text, s.missing_reason),
           missing_from = CASE WHEN $13 IS NULL THEN s.missing_from ELSE $15::bigint END,
           missing_to = CASE WHEN $13 IS NULL THEN s.missing_to ELSE $16::bigint END,
           missing_at = CASE WHEN $13 IS NULL THEN s.missing_at ELSE clock_timestamp() END
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

  /** All subscriptions. @throws what the session throws */
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

  /** Nothing that was read before is committed from now on. Undefined: it is gone, or another process leads. */
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

  /** @returns false: it is another generation by now, or another server, which may lack what was written before */
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

  /** @returns as `record`; "busy": a batch is writing the row */
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
