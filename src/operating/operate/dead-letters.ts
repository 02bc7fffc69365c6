/** Listing, retrying and deleting dead letters. See docs/decisions/retries.md. */

import { storeFunctions, views } from "../../../generated/ts/rows/peer.js";
import { editFunctions, views as queueViews } from "../../../generated/ts/rows/queue.js";
import { columnChecks } from "../../../generated/ts/rules/peer/catalog.js";
import { protocolConstants, storeConstants } from "../../../generated/ts/settings/peer.js";
import { errorTable, HawserError, refuse } from "../../foundation/errors/index.js";
import { queryCanceled, sqlstateOf } from "../../foundation/postgres/index.js";
import { type Database, type HeaderPair, insertBytes } from "../../jobs-and-peers/store/index.js";
import { causeSql, type DeadLetterOrigin, messageParts } from "./dead-letter-causes.js";

/** Number of dead letters that one statement examines to find those that match a filter. */
export const examinedDeadLetters = 20_000;

/** Filter of dead letters. All given criteria must match; without criteria, all dead letters match. */
export interface DeadLetterFilter {
  readonly ids?: readonly number[] | undefined;
  /** `subscription`, `outbox` or `queue`. */
  readonly origin?: string | undefined;
  /** Subscribed function, or recipient in the queue. */
  readonly source?: string | undefined;
  /** Topic or subject. */
  readonly topic?: string | undefined;
  readonly errorCode?: string | undefined;
  /** Error message as {@link causeSql} shortens it. */
  readonly cause?: string | undefined;
  /** Only dead letters with this id or a lower one. */
  readonly throughId?: number | undefined;
  /** Only dead letters created before this time. */
  readonly before?: Date | undefined;
  /** Only dead letters created at or after this time. */
  readonly after?: Date | undefined;
  /** Maximum number: the newest of a list, the oldest of a retry or discard. Default: no limit. */
  readonly limit?: number | undefined;
}

/**
 * Converts the filter, without its limit, to an SQL condition over `dead_letters AS d` and its parameters from `$1`.
 *
 * @throws HawserError `invalid_argument` for a value that no dead letter can have
 */
function conditionsOf(filter: DeadLetterFilter): { readonly where: string; readonly values: unknown[] } {
  check(filter);
  const values: unknown[] = [];
  const conditions: string[] = [];
  const add = (condition: (parameter: string) => string, value: unknown): void => {
    if (value === undefined) return;
    values.push(value);
    conditions.push(condition(`$${values.length}`));
  };
  add((parameter) => `d.id = ANY (${parameter}::bigint[])`, filter.ids?.map(String));
  add((parameter) => `d.origin = ${parameter}`, filter.origin);
  add((parameter) => `d.source = ${parameter}`, filter.source);
  add((parameter) => `d.topic = ${parameter}`, filter.topic);
  add((parameter) => `d.error_code = ${parameter}`, filter.errorCode);
  // Cheaper than the expression, so Postgres checks them first.
  const { start, within } = filter.cause ? messageParts(filter.cause) : {};
  add((parameter) => `starts_with(d.error_message, ${parameter})`, start);
  add((parameter) => `strpos(d.error_message, ${parameter}) > 0`, within);
  add((parameter) => `${causeSql} = ${parameter}`, filter.cause);
  add((parameter) => `d.id <= ${parameter}::bigint`, filter.throughId?.toString());
  add((parameter) => `d.created_at < ${parameter}::timestamptz`, filter.before?.toISOString());
  add((parameter) => `d.created_at >= ${parameter}::timestamptz`, filter.after?.toISOString());
  return { where: conditions.length === 0 ? "true" : conditions.join(" AND "), values };
}

/** Id of a dead letter that is given as text. @throws HawserError `invalid_argument` */
export function deadLetterIdOf(text: string): number {
  const id = Number(text);
  if (/^[1-9]\d*$/.test(text) && Number.isSafeInteger(id)) return id;
  throw new HawserError("invalid_argument", `"${text}" is not the id of a dead letter: ids are integers from 1`);
}

function check({ ids, origin, throughId, before, after, limit }: DeadLetterFilter): void {
  for (const id of [...(ids ?? []), ...(throughId === undefined ? [] : [throughId])]) {
    if (!Number.isSafeInteger(id) || id < 1 || columnChecks.dead_letters.id(BigInt(id)) !== undefined) {
      throw new HawserError("invalid_argument", `the dead letter ${id}: an id is a positive integer`);
    }
  }
  if (origin !== undefined) refuse(columnChecks.dead_letters.origin(origin));
  for (const [name, moment] of Object.entries({ before, after })) {
    if (moment !== undefined && Number.isNaN(moment.getTime())) {
      throw new HawserError("invalid_argument", `${name} is not a valid date; give one such as 2030-01-31T12:00:00Z`);
    }
  }
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 1)) {
    throw new HawserError("invalid_argument", `limit ${limit}: must be a positive integer`);
  }
}

/** Dead letter without its payload. */
export interface DeadLetterEntry {
  readonly id: number;
  readonly origin: DeadLetterOrigin;
  /** Role whose members may retry and discard it; null if unknown. */
  readonly role: string | null;
  /**
   * Subscribed function. For the outbox, `core` or the JetStream domain. For the queue, the recipient: empty, `@name` or
   * `#group`, with a priority behind `!`.
   */
  readonly source: string;
  /** Peer or database role that enqueued it; null if it was sent, or if the origin is unknown. */
  readonly enqueuedBy: string | null;
  /** Place of a message that was sent: `sender:source_topic:listener/epoch/number`; null if it was not sent. */
  readonly sentAs: string | null;
  /** Listener that alone would receive it again; null if there are several, and for other origins than `queue`. */
  readonly listener: string | null;
  /** Peer or worker that had it when it was given up; null if none had it, and for other origins than `queue`. */
  readonly worker: string | null;
  /** Id of the message in the queue, which it keeps if it is retried: as `hawser.enqueue` returned it, if it was enqueued; null for other origins. */
  readonly jobId: string | null;
  /** Topic or subject. */
  readonly topic: string;
  readonly payloadBytes: number;
  readonly errorCode: string;
  readonly errorMessage: string;
  /** Number of handler starts since it was last retried. */
  readonly attempts: number;
  /** Number of times that a stop cut its handler off, which are no attempts; 0 for other origins than `queue`. */
  readonly givenBack: number;
  /** Time at which it became a dead letter. */
  readonly createdAt: Date;
}

/** Dead letter with its payload and headers. */
export interface WholeDeadLetter extends DeadLetterEntry {
  /** Uncompressed payload. */
  readonly payload: Uint8Array;
  /** Empty if there are none. */
  readonly headers: readonly HeaderPair[];
  /** Stack of the last error; null if it had none, or for other origins than `queue`. */
  readonly stack: string | null;
  /** Last known failed attempts, in order; empty for other origins than `queue`. */
  readonly failures: readonly DeadLetterFailure[];
  /** Correction of its payload, also of one that has failed again after its retry; null if the payload is the original one. */
  readonly edit: DeadLetterEdit | null;
}

/** Correction of a dead letter's payload. */
export interface DeadLetterEdit {
  /** Time of the last correction in ISO 8601. */
  readonly at: string;
  /** Login that has last corrected it. */
  readonly by: string;
  /** Number of corrections. */
  readonly edits: number;
  /** Payload before the first correction. */
  readonly original: Uint8Array;
}

/** Failed attempt of a dead letter. */
interface DeadLetterFailure {
  /** Number of the attempt, from 1. */
  readonly attempt: number;
  /** Time in ISO 8601. */
  readonly at: string;
  readonly code: string;
  readonly message: string;
}

/** Dead letters to retry or discard: a filter with at least one criterion, or all. */
export type DeadLetterSelection = DeadLetterFilter & {
  /** Selects all dead letters if no criterion is given. Default false: a selection without criteria is refused. */
  readonly all?: boolean | undefined;
};

/** Result for one selected dead letter. */
export type DeadLetterOutcome = {
  readonly id: number;
} /** The message is in the outbox or the queue again, without a key. */ & (
  | Readonly<{ outcome: "enqueued" }>
  | Readonly<{ outcome: "discarded" }>
  /** The dead letter stays: it cannot be retried, or the login may not discard it. */
  | ({ readonly outcome: "refused" } & DeadLetterRefusal)
  /** The given id does not exist (any more). */
  | Readonly<{ outcome: "missing" }>
);

interface DeadLetterRefusal {
  readonly code: "invalid_argument" | "not_permitted";
  readonly message: string;
}

const from = `FROM ${views.deadLetter} AS d`;
/** Enqueuer of a message, from a header. Any sender may set it, so it counts only for messages of the queue. */
const enqueuedBy = `CASE WHEN d.origin = 'queue' AND d.channel_id IS NULL THEN (
    SELECT nullif(coalesce(nullif(split_part(h.pair ->> 1, ':', 1), ''), regexp_replace(h.pair ->> 1, '^[^:]*:[^:]*:', '')), '')
      FROM jsonb_array_elements(d.headers) AS h (pair) WHERE h.pair ->> 0 = '${protocolConstants.messageOriginHeader}' LIMIT 1
  ) END`;
const entry = `d.id::float8 AS id, d.origin, d.role, d.source, ${enqueuedBy} AS "enqueuedBy",
  CASE WHEN d.channel_id IS NOT NULL THEN d.message_id END AS "sentAs",
  CASE d.origin WHEN 'queue' THEN substring(d.source FROM '^@(.*)') END AS listener, d.worker, d.job_id::text AS "jobId", d.topic, octet_length(d.payload) AS "payloadBytes",
  d.error_code AS "errorCode", d.error_message AS "errorMessage", d.attempts, d.given_back AS "givenBack", d.created_at AS "createdAt"`;

const sql = {
  get: `SELECT ${entry}, d.payload, coalesce(d.headers, '[]') AS headers, d.stack, coalesce(d.failures, '[]') AS failures,
               o.payload AS original, o.edited_at AS "editedAt", o.edited_by AS "editedBy", o.edits
          ${from}
          LEFT JOIN ${queueViews.originalPayload} AS o
            ON o.origin = d.origin AND o.id = CASE d.origin WHEN 'queue' THEN d.job_id WHEN 'subscription' THEN d.id END
         WHERE d.id = $1`,
  newest: `SELECT max(id) AS id FROM ${views.deadLetter}`,
  part: `SELECT max(p.id) AS id
           FROM (SELECT d.id FROM ${views.deadLetter} AS d WHERE d.id > $1 AND d.id <= $2 ORDER BY d.id LIMIT $3) AS p`,
} as const;

function notOwned(id: number): DeadLetterRefusal {
  return {
    code: "not_permitted",
    message: `dead letter ${id} belongs to a role that this login is not a member of; use one that is, or a member of hawser_owner`,
  };
}

const refusals: Readonly<Record<string, (id: number) => DeadLetterRefusal>> = {
  handler: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} belongs to a function that is no longer subscribed; discard it, or call the function with its payload yourself`,
  }),
  owner: notOwned,
  role: (id) => ({
    code: "not_permitted",
    message: `dead letter ${id} was enqueued by a role that does not exist any more, or may not enqueue for NATS any more; discard it, or grant the role hawser_nats`,
  }),
  invalid: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} has a topic, id or headers that are not valid for a message; discard it`,
  }),
};

/**
 * Dead-letter functions of a database. All of them throw HawserError `store_failed`, and `invalid_argument` for an
 * invalid filter.
 */
export function deadLetters(database: Database) {
  /**
   * Yields the ids that match, oldest first, in batches for one statement each. A statement examines at most
   * `examinedDeadLetters`, because there is no index for most criteria: a batch is empty if none of them match.
   */
  async function* batches(selection: DeadLetterSelection): AsyncGenerator<number[]> {
    const { limit = Infinity, ids } = selection;
    check(selection);
    // The part that a statement examines has this limit of ids.
    const { where, values } = conditionsOf({ ...selection, throughId: undefined });
    const search = <Row extends object>(text: string, values: readonly unknown[]) =>
      database.query<Row>("search the dead letters", { text, values });
    const [newest] = await search<{ id: bigint | null }>(sql.newest, []);
    const last = Math.min(Number(newest?.id ?? 0n), selection.throughId ?? Infinity);
    let after = 0;
    // Ids are found by the primary key.
    let examined = ids === undefined ? after : last;
    let left = limit;
    while (left > 0) {
      if (after >= examined) {
        const [part] = await search<{ id: bigint | null }>(sql.part, [after, last, examinedDeadLetters]);
        if (part?.id == null) return;
        examined = Number(part.id);
      }
      const page = Math.min(left, storeConstants.deadLetterRows);
      const text = `SELECT d.id, octet_length(d.payload) AS bytes ${from}
        WHERE ${where} AND d.id > $${values.length + 1} AND d.id <= $${values.length + 2}
        ORDER BY d.id LIMIT ${page}`;
      const rows = await search<{ id: bigint; bytes: number }>(text, [...values, after, examined]);
      const batch: number[] = [];
      let bytes = 0;
      for (const row of rows) {
        if (batch.length > 0 && bytes + row.bytes > insertBytes) break;
        bytes += row.bytes;
        batch.push(Number(row.id));
      }
      yield batch;
      const isComplete = rows.length < page && batch.length === rows.length;
      after = isComplete ? examined : (batch.at(-1) as number);
      if (ids !== undefined && isComplete) return;
      left -= batch.length;
    }
  }

  /** Applies `changed` to the selected dead letters, and yields the results of each batch, ordered by id. */
  async function* changeInBatches(
    selection: DeadLetterSelection,
    changed: (ids: readonly bigint[]) => Promise<DeadLetterOutcome[]>,
  ): AsyncGenerator<DeadLetterOutcome[]> {
    checkSelection(selection);
    for await (const ids of batches(selection)) {
      yield ids.length === 0 ? [] : (await changed(ids.map(BigInt))).sort((one, other) => one.id - other.id);
    }
  }

  /** Applies `changed` to the selected dead letters. @returns the results by batch and id, then the missing ids */
  async function change(
    selection: DeadLetterSelection,
    changed: (ids: readonly bigint[]) => Promise<DeadLetterOutcome[]>,
  ): Promise<DeadLetterOutcome[]> {
    const outcomes: DeadLetterOutcome[] = [];
    for await (const batch of changeInBatches(selection, changed)) outcomes.push(...batch);
    const found = new Set(outcomes.map(({ id }) => id));
    const missing = (selection.ids ?? []).filter((id) => !found.has(id));
    return [...outcomes, ...missing.map((id) => ({ id, outcome: "missing" }) as const)];
  }

  async function retryIds(ids: readonly bigint[]): Promise<DeadLetterOutcome[]> {
    const caller = database.caller(`retry ${ids.length} dead letters`);
    const rows = await storeFunctions(caller).retryDeadLetters({ ids });
    return rows.map((row) => {
      const id = Number(row.id);
      if (row.enqueued === true) return { id, outcome: "enqueued" };
      return { id, outcome: "refused", ...refusalOf(row.refused, id) };
    });
  }

  async function discardIds(ids: readonly bigint[]): Promise<DeadLetterOutcome[]> {
    const rows = await storeFunctions(database.caller(`discard ${ids.length} dead letters`)).discardDeadLetters({
      ids,
    });
    return rows.map(({ id: key, refused }) => {
      const id = Number(key);
      return refused === null ? { id, outcome: "discarded" } : { id, outcome: "refused", ...notOwned(id) };
    });
  }

  return {
    /** Lists the dead letters that match the filter, newest first. */
    async list(filter: DeadLetterFilter = {}): Promise<DeadLetterEntry[]> {
      const { where, values } = conditionsOf(filter);
      const limit = filter.limit === undefined ? "" : `LIMIT ${filter.limit}`;
      const text = `SELECT ${entry} ${from} WHERE ${where} ORDER BY d.id DESC ${limit}`;
      return database.query<DeadLetterEntry>("list the dead letters", { text, values });
    },
    /** Counts the dead letters that match the filter, up to `atMost`; undefined if the statement is cancelled because it takes too long. */
    async count(filter: DeadLetterFilter, atMost: number): Promise<number | undefined> {
      const { where, values } = conditionsOf(filter);
      const text = `SELECT count(*)::integer AS count FROM (SELECT ${from} WHERE ${where} LIMIT ${atMost}) AS matching`;
      try {
        return (await database.query<{ count: number }>("count the dead letters", { text, values }))[0]!.count;
      } catch (error) {
        if (sqlstateOf(error) === queryCanceled) return undefined;
        throw error;
      }
    },
    /** Returns the greatest id; undefined if there is no dead letter. */
    async newestId(): Promise<number | undefined> {
      const [newest] = await database.query<{ id: bigint | null }>("search the dead letters", { text: sql.newest });
      return newest?.id == null ? undefined : Number(newest.id);
    },
    /** Returns a dead letter with its payload; undefined if it does not exist. */
    async get(id: number): Promise<WholeDeadLetter | undefined> {
      check({ ids: [id] });
      const values = [id];
      const [row] = await database.query<Omit<WholeDeadLetter, "edit"> & OriginalRow>(`read dead letter ${id}`, {
        text: sql.get,
        values,
      });
      if (row === undefined) return undefined;
      const { original, editedAt, editedBy, edits, ...letter } = row;
      const edit = original === null ? null : { at: editedAt!.toISOString(), by: editedBy!, edits: edits!, original };
      return { ...letter, edit };
    },
    /**
     * Replaces the payload of a dead letter of the login's roles. The payload before the first correction stays until the
     * message has been handled or discarded. Only for origins `queue` and `subscription`.
     *
     * @param anyFormat true if the payload need not be JSON where it was
     * @returns false if it has this payload already
     * @throws HawserError `invalid_argument` for one that is gone, of another origin or whose retry is under way, and for a payload
     * that is not JSON; `not_permitted` for one of another role; `store_failed`
     */
    async edit(id: number, payload: Uint8Array, anyFormat = false): Promise<boolean> {
      check({ ids: [id] });
      const functions = editFunctions(database.caller(`edit dead letter ${id}`));
      try {
        return (await functions.editDeadLetter({ id: BigInt(id), payload, anyFormat })).edited;
      } catch (error) {
        const code = refusedEdits.find((each) => errorTable[each].sqlstate === sqlstateOf(error));
        throw code === undefined ? error : new HawserError(code, (error as Error).message, { cause: error });
      }
    },
    /**
     * Redelivers dead letters at least once, in the order of their ids. The handler receives the same message. Works in
     * batches of `deadLetterRows` and `insertBytes`: after an error, some may be retried, and a repeated call retries
     * the rest. Dead letters created during the call are not retried.
     *
     * For a dead letter of a subscribed function, a request is recorded. The leader, or the next process that becomes the
     * leader, calls the function again, and then deletes the dead letter, or keeps it with the new error. The retry is
     * refused if the function is no longer subscribed.
     *
     * An outbox message that NATS refused is enqueued again, and the relay publishes it. A message of the queue, also one that was
     * sent, is enqueued again for whom it was.
     *
     * Dead letters of roles that the login is not a member of are refused.
     */
    retry(selection: DeadLetterSelection): Promise<DeadLetterOutcome[]> {
      return change(selection, retryIds);
    },
    /**
     * {@link retry} that yields the results of each batch: a consumer that stops leaves the rest as it is. Results are
     * empty after a search that has found none.
     */
    retryInBatches(selection: DeadLetterSelection): AsyncGenerator<DeadLetterOutcome[]> {
      return changeInBatches(selection, retryIds);
    },
    /** Deletes dead letters of the login's roles, in batches as {@link retry}. */
    discard(selection: DeadLetterSelection): Promise<DeadLetterOutcome[]> {
      return change(selection, discardIds);
    },
    /** {@link discard} that yields the results of each batch, as {@link retryInBatches}. */
    discardInBatches(selection: DeadLetterSelection): AsyncGenerator<DeadLetterOutcome[]> {
      return changeInBatches(selection, discardIds);
    },
    /**
     * Deletes dead letters of the login's roles that are older than the retention of the database: the oldest, at most
     * `deadLetterRows`.
     *
     * @returns number of deleted rows; undefined if another process was changing dead letters, so that nothing was done
     */
    async expire(): Promise<number | undefined> {
      const caller = database.caller("delete old dead letters");
      const { deleted } = await storeFunctions(caller).expireDeadLetters({ maxRows: storeConstants.deadLetterRows });
      return deleted ?? undefined;
    },
  };
}

/** Errors of an edit that are of its caller. */
const refusedEdits = ["invalid_argument", "not_permitted"] as const;

/** Columns of the correction. */
interface OriginalRow {
  readonly original: Uint8Array | null;
  readonly editedAt: Date | null;
  readonly editedBy: string | null;
  readonly edits: number | null;
}

/** Dead-letter functions of a database. */
export type DeadLetters = ReturnType<typeof deadLetters>;

function refusalOf(reason: string | null, id: number): DeadLetterRefusal {
  const refusal = refusals[reason ?? ""];
  if (refusal === undefined) throw new HawserError("internal", `dead letter ${id} was refused for an unknown reason`);
  return refusal(id);
}

/** Refuses a selection without criteria: an accidentally empty criterion must not select the whole table. */
function checkSelection({ all = false, limit: _, ...criteria }: DeadLetterSelection): void {
  if (all || Object.values(criteria).some((value) => value !== undefined)) return;
  throw new HawserError("invalid_argument", "no dead letters are selected; give at least one criterion, or set all");
}
