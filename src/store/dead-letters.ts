/**
 * Dead letters: listed, handled again, deleted.
 *
 * What is retried becomes a stored message of its channel's retry channel, which has the same sender and owner, a row of
 * its own in `conn_key_map`, and no sender that dials it. See docs/decisions/0015-retry-channels.md.
 */
import { storeFunctions, tables } from "../../generated/ts/rows/peer.js";
import { columnChecks } from "../../generated/ts/rules/peer/catalog.js";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import type { Database } from "./database.js";
import { announce } from "./notifications.js";
import type { HeaderPair } from "./stored-messages.js";

/** Which dead letters are meant: those that pass all that is given. Nothing given: all. */
export interface DeadLetterFilter {
  readonly ids?: readonly number[] | undefined;
  /** `peer`, `subscription` or `outbox`. */
  readonly origin?: string | undefined;
  /** The composite of the channel that it was sent on, or the subscribed function. */
  readonly source?: string | undefined;
  /** The topic, or the subject. */
  readonly topic?: string | undefined;
  readonly errorCode?: string | undefined;
  /** Given up before this moment. */
  readonly before?: Date | undefined;
  /** Given up at this moment or after it. */
  readonly after?: Date | undefined;
  /** The oldest so many of them. Default: no limit. */
  readonly limit?: number | undefined;
}

/**
 * The filter as an SQL condition over `dead_letters AS d`, and its parameters from `$1` on. The limit is not part of it.
 *
 * @param source what stands for the source, as SQL
 * @throws HawserError `invalid_argument` for a value that no dead letter can have
 */
function conditionsOf(
  filter: DeadLetterFilter,
  source: string,
): { readonly where: string; readonly values: unknown[] } {
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
  add((parameter) => `${source} = ${parameter}`, filter.source);
  add((parameter) => `d.topic = ${parameter}`, filter.topic);
  add((parameter) => `d.error_code = ${parameter}`, filter.errorCode);
  add((parameter) => `d.created_at < ${parameter}::timestamptz`, filter.before?.toISOString());
  add((parameter) => `d.created_at >= ${parameter}::timestamptz`, filter.after?.toISOString());
  return { where: conditions.length === 0 ? "true" : conditions.join(" AND "), values };
}

function check({ ids, origin, before, after, limit }: DeadLetterFilter): void {
  for (const id of ids ?? []) {
    if (!Number.isSafeInteger(id) || id < 1 || columnChecks.dead_letters.id(BigInt(id)) !== undefined) {
      throw new HawserError("invalid_argument", `the dead letter ${id}: an id is a positive integer`);
    }
  }
  const bad = origin === undefined ? undefined : columnChecks.dead_letters.origin(origin);
  if (bad !== undefined) throw new HawserError("invalid_argument", `origin ${bad.value}: ${bad.rule}. ${bad.remedy}`);
  for (const [name, moment] of Object.entries({ before, after })) {
    if (moment !== undefined && Number.isNaN(moment.getTime())) {
      throw new HawserError("invalid_argument", `${name} is no moment; give a date such as 2030-01-31T12:00:00Z`);
    }
  }
  if (limit !== undefined && (!Number.isSafeInteger(limit) || limit < 1)) {
    throw new HawserError("invalid_argument", `limit ${limit}: must be a positive integer`);
  }
}

/** A dead letter without its payload. */
export interface DeadLetterEntry {
  readonly id: number;
  readonly origin: "peer" | "subscription" | "outbox";
  /** The role whose members may retry and discard it; null: not known. */
  readonly role: string | null;
  /** The composite of the channel that it was sent on, or the subscribed function. Of the outbox `core`, or the JetStream domain. */
  readonly source: string;
  /** The peer that enqueued it for a peer, or else the database role; null: it was sent, or that is not known. */
  readonly enqueuedBy: string | null;
  /** The listener that owns the channel now, and would have it again; null for other origins. */
  readonly listener: string | null;
  /** The topic, or the subject. */
  readonly topic: string;
  readonly payloadBytes: number;
  readonly errorCode: string;
  readonly errorMessage: string;
  /** How often its handler was started, since it was retried last. */
  readonly attempts: number;
  /** When it was given up. */
  readonly createdAt: Date;
  /** It was retried before, and has failed again (of peers). */
  readonly retried: boolean;
  /** It is to be handled again by the process that leads (of subscriptions). */
  readonly retryRequested: boolean;
}

/** A dead letter with everything that the message was. */
export interface WholeDeadLetter extends DeadLetterEntry {
  /** Uncompressed. */
  readonly payload: Uint8Array;
  /** Empty: none. */
  readonly headers: readonly HeaderPair[];
  /** The stack of the last error; null: what was thrown had none, or it is of no peer. */
  readonly stack: string | null;
  /** The last attempts that are known, in order; empty for other origins. */
  readonly failures: readonly DeadLetterFailure[];
}

/** A failed attempt of a dead letter. */
interface DeadLetterFailure {
  /** From 1. */
  readonly attempt: number;
  /** In ISO 8601. */
  readonly at: string;
  readonly code: string;
  readonly message: string;
}

/** Which dead letters to retry or discard: a filter that names something, or all of them. */
type DeadLetterSelection = DeadLetterFilter & {
  /** No criterion is meant to mean all. Default false: then a selection without any is refused. */
  readonly all?: boolean | undefined;
};

/** What became of a selected dead letter. */
export type DeadLetterOutcome = { readonly id: number } & (
  | Readonly<{
      /** A stored message again, which the listener will have. */
      outcome: "retried";
      listener: string;
    }>
  | Readonly<{
      /** The process that leads the subscriptions will give it to the function. It stays until that has succeeded. */
      outcome: "requested";
      function: string;
    }>
  /** Of the outbox: a message there again, without a key. */
  | Readonly<{ outcome: "enqueued" }>
  | Readonly<{ outcome: "discarded" }>
  /** It cannot be retried, or may not be discarded, and stays. */
  | ({ readonly outcome: "refused" } & Refusal)
  /** The id was given, and is not there (any more). */
  | Readonly<{ outcome: "missing" }>
);

interface Refusal {
  readonly code: "invalid_argument" | "not_permitted";
  readonly message: string;
}

const from = `FROM ${tables.deadLetter} AS d
  LEFT JOIN ${tables.connKeyMap} AS m ON m.connection_key = d.connection_key AND d.origin = 'peer'
  LEFT JOIN ${tables.connKeyMap} AS b ON b.connection_key = m.retry_of`;
/** What failed again names its retry channel; people know the one it was sent on. */
const source = "coalesce(b.composite, d.source)";
/** A sender may give any header; the outbox writes this one. */
const enqueuedBy = `CASE WHEN starts_with(${source}, '${outboxConstants.peerSender}:') THEN (
    SELECT nullif(coalesce(nullif(split_part(h.pair ->> 1, ':', 1), ''), regexp_replace(h.pair ->> 1, '^[^:]*:[^:]*:', '')), '')
      FROM jsonb_array_elements(d.headers) AS h (pair) WHERE h.pair ->> 0 = '${protocolConstants.messageOriginHeader}' LIMIT 1
  ) END`;
const entry = `d.id::float8 AS id, d.origin, d.role, ${source} AS source, ${enqueuedBy} AS "enqueuedBy",
  coalesce(m.owner, m.listener_name) AS listener, d.topic, octet_length(d.payload) AS "payloadBytes", d.error_code AS "errorCode",
  d.error_message AS "errorMessage", d.attempts, d.created_at AS "createdAt", m.retry_of IS NOT NULL AS retried,
  d.retry_requested AS "retryRequested"`;

const sql = {
  get: `SELECT ${entry}, d.payload, coalesce(d.headers, '[]') AS headers, d.stack, coalesce(d.failures, '[]') AS failures ${from} WHERE d.id = $1`,
  newest: `SELECT max(id) AS id FROM ${tables.deadLetter}`,
} as const;

function notOwned(id: number): Refusal {
  return {
    code: "not_permitted",
    message: `dead letter ${id} belongs to a role that this login is not a member of; use one that is, or a member of hawser_owner`,
  };
}

const refusals: Readonly<Record<string, (id: number) => Refusal>> = {
  handler: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} is of a function that is not subscribed any more; discard it, or call the function with its payload by hand`,
  }),
  channel: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} is of a channel that this database does not have; discard it`,
  }),
  topic: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} is for a topic that this database does not have; discard it`,
  }),
  owner: notOwned,
  unproven: (id) => ({
    code: "not_permitted",
    message: `dead letter ${id} is from before Hawser recorded who wrote it, and anybody could have: look at it, publish it by hand if it is yours, and discard it`,
  }),
  invalid: (id) => ({
    code: "invalid_argument",
    message: `dead letter ${id} has a topic, id or headers that no message may have; discard it`,
  }),
};

/** The dead letters of a database. All calls throw HawserError `store_failed`, and `invalid_argument` for a bad filter. */
export function deadLetters(database: Database) {
  /** The ids that pass, oldest first, in batches that one statement may take. */
  async function* batches(selection: DeadLetterSelection): AsyncGenerator<number[]> {
    const { limit = Infinity } = selection;
    const [newest] = await database.query<{ id: bigint | null }>("look for dead letters", { text: sql.newest });
    const last = newest?.id ?? 0n;
    let after = 0;
    let left = limit;
    while (left > 0) {
      const { where, values } = conditionsOf(selection, source);
      const page = Math.min(left, storeConstants.deadLetterRows);
      const text = `SELECT d.id, octet_length(d.payload) AS bytes ${from}
        WHERE ${where} AND d.id > $${values.length + 1} AND d.id <= $${values.length + 2}
        ORDER BY d.id LIMIT ${page}`;
      const rows = await database.query<{ id: bigint; bytes: number }>("look for dead letters", {
        text,
        values: [...values, after, String(last)],
      });
      const batch: number[] = [];
      let bytes = 0;
      for (const row of rows) {
        if (batch.length > 0 && bytes + row.bytes > storeConstants.insertBytes) break;
        bytes += row.bytes;
        batch.push(Number(row.id));
      }
      if (batch.length === 0) return;
      yield batch;
      after = batch.at(-1) as number;
      left -= batch.length;
    }
  }

  /** Changes what is selected. @returns by batch and id, then what is missing */
  async function change(
    selection: DeadLetterSelection,
    changed: (ids: readonly bigint[]) => Promise<DeadLetterOutcome[]>,
  ): Promise<DeadLetterOutcome[]> {
    checkSelection(selection);
    const outcomes: DeadLetterOutcome[] = [];
    for await (const ids of batches(selection)) {
      const batch = await changed(ids.map(BigInt));
      outcomes.push(...batch.sort((one, other) => one.id - other.id));
    }
    const found = new Set(outcomes.map(({ id }) => id));
    const missing = (selection.ids ?? []).filter((id) => !found.has(id));
    return [...outcomes, ...missing.map((id) => ({ id, outcome: "missing" }) as const)];
  }

  return {
    /** The dead letters that pass the filter, the oldest first. */
    async list(filter: DeadLetterFilter = {}): Promise<DeadLetterEntry[]> {
      const { where, values } = conditionsOf(filter, source);
      const limit = filter.limit === undefined ? "" : `LIMIT ${filter.limit}`;
      const text = `SELECT ${entry} ${from} WHERE ${where} ORDER BY d.id ${limit}`;
      return database.query<DeadLetterEntry>("list the dead letters", { text, values });
    },
    /** One of them with its payload; undefined if it is not there. */
    async get(id: number): Promise<WholeDeadLetter | undefined> {
      check({ ids: [id] });
      const values = [id];
      return (await database.query<WholeDeadLetter>(`read dead letter ${id}`, { text: sql.get, values }))[0];
    },
    /**
     * Gives dead letters to their listeners again, at least once, in the order of their ids: each is, in one transaction, no
     * dead letter any more and a stored message. The handler sees the same message, and its reply goes to the same sender.
     * Works in batches of `deadLetterRows` and `insertBytes`: after an error some may be retried, and the same call again
     * takes the others. What fails again meanwhile is not retried twice.
     *
     * What a subscribed function has failed at is handled again by the process that leads, soon or when there is one: it is
     * told, and deletes the dead letter, or leaves it with the new error. Refused where the function is not subscribed any more.
     *
     * What NATS has refused of the outbox is published again by the process that leads.
     *
     * Refused are those of roles that the login is not a member of.
     */
    retry(selection: DeadLetterSelection): Promise<DeadLetterOutcome[]> {
      return change(selection, async (ids) => {
        const caller = database.caller(`retry ${ids.length} dead letters`);
        const told = new Map<number, string>();
        const outcomes: DeadLetterOutcome[] = [];
        for (const row of await storeFunctions(caller).retryDeadLetters({ ids })) {
          const id = Number(row.id);
          if (row.connectionKey !== null && row.owner !== null) {
            outcomes.push({ id, outcome: "retried", listener: row.owner });
            told.set(row.connectionKey, row.owner);
          } else if (row.refused === null && row.function !== null) {
            outcomes.push({ id, outcome: "requested", function: row.function });
          } else if (row.enqueued === true) outcomes.push({ id, outcome: "enqueued" });
          else outcomes.push({ id, outcome: "refused", ...refusalOf(row.refused, id) });
        }
        await announce(
          database,
          [...told].map(([connectionKey, listener]) => [listener, connectionKey]),
        );
        return outcomes;
      });
    },
    /** Deletes dead letters of the login's roles, in batches as {@link retry}. */
    discard(selection: DeadLetterSelection): Promise<DeadLetterOutcome[]> {
      return change(selection, async (ids) => {
        const rows = await storeFunctions(database.caller(`discard ${ids.length} dead letters`)).discardDeadLetters({
          ids,
        });
        return rows.map(({ id: key, refused }) => {
          const id = Number(key);
          return refused === null ? { id, outcome: "discarded" } : { id, outcome: "refused", ...notOwned(id) };
        });
      });
    },
    /**
     * Deletes those of the login's roles that are older than the retention of the database, oldest first, at most `deadLetterRows`
     * of them.
     *
     * @returns how many; undefined if another process is at work on dead letters, and nothing was done
     */
    async expire(): Promise<number | undefined> {
      const caller = database.caller("delete old dead letters");
      const { deleted } = await storeFunctions(caller).expireDeadLetters({ maxRows: storeConstants.deadLetterRows });
      return deleted ?? undefined;
    },
  };
}

/** The dead letters of a database. */
export type DeadLetters = ReturnType<typeof deadLetters>;

function refusalOf(reason: string | null, id: number): Refusal {
  const refusal = refusals[reason ?? ""];
  if (refusal === undefined) throw new HawserError("internal", `dead letter ${id} was refused without a known reason`);
  return refusal(id);
}

/** Nobody should empty the table because a variable was empty. */
function checkSelection({ all = false, limit: _, ...criteria }: DeadLetterSelection): void {
  if (all || Object.values(criteria).some((value) => value !== undefined)) return;
  throw new HawserError("invalid_argument", "no dead letters are selected: name some, or say that all are meant");
}
