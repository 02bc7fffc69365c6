/**
 * Session that changes the schema of a database in use, and yields to the sessions of others.
 *
 * A session that waits for a strong lock blocks more than itself: all later requests for the table queue behind it,
 * even those that are compatible with each other. So {@link Preparation} waits for locks in short attempts, and others
 * proceed between them. Statements that block no others, such as CREATE INDEX CONCURRENTLY, wait without interruption.
 *
 * If that takes long, a second session asks Postgres which sessions hold the locks.
 */

import type pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import { type ClientSource, openSession, sqlstateOf } from "../../foundation/postgres/index.js";
import { Backoff, Deadline, delay } from "../../foundation/runtime/index.js";
import { turnLimitMs, turnNoticeMs } from "./installation-lock.js";
import { tableSchemaNames } from "./schema.js";

/** Maximum time beyond the limit until the blocking session is known. */
const yieldLateMs = 60_000;

/** Time limits of waits for locks. */
export interface YieldLimits {
  /** Maximum wait of one attempt for all locks of a transaction. Other sessions are blocked for at most this time. */
  readonly lockMs: number;
  /** First pause between two attempts. Pauses double up to `noticeMs`. */
  readonly pauseMs: number;
  /** Time until the blocking sessions are first reported. */
  readonly noticeMs: number;
  /** Maximum time of all attempts together. */
  readonly limitMs: number;
}

const defaults: YieldLimits = {
  lockMs: 500,
  pauseMs: 1_000,
  noticeMs: turnNoticeMs,
  limitMs: turnLimitMs,
};

/** Collaborators and limits of {@link Preparation}. */
export interface PreparationOptions {
  /** Address of the client, or the pool that it comes from. */
  readonly address: ClientSource;
  /** Receives a message about the blocking sessions if the wait takes long. */
  readonly onWait?: ((line: string) => void) | undefined;
  /** Ends pauses. */
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<YieldLimits> | undefined;
}

/**
 * Tables that each write of a peer locks first, for a short time. A session that holds them sees no half-done write in
 * other tables.
 */
const peerFence: readonly string[] = ["owners", "fences"];

/**
 * Tables that transactions lock first: those of subscribed functions, outbox relays, transactional handlers and peer
 * writes. A transaction that holds one of these tables never waits for a table before it in the list. All other tables
 * are locked later.
 */
const lockOrder: readonly string[] = ["outbox_turns", "peers", ...peerFence];

/** SQLSTATEs of errors that a retry may resolve: lock_not_available, deadlock_detected. */
const retryable = new Set(["55P03", "40P01"]);

const tablesSql = `
  SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname IN ${tableSchemaNames} AND c.relkind IN ('r', 'p') AND c.relname = ANY ($1)`;

/** Statements around a part of the work: to begin, commit and roll back. */
type Frame = readonly [begin: string, commit: string, rollback: string];
const transaction: Frame = ["BEGIN", "COMMIT", "ROLLBACK"];
const savepoint: Frame = [
  "SAVEPOINT part",
  "RELEASE SAVEPOINT part",
  "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part",
];

/** Session that prepares a database. */
export class Preparation {
  readonly client: pg.Client;
  readonly #options: PreparationOptions;
  readonly #limits: YieldLimits;
  #isWhole = false;

  /** @param client holds the installation lock: see `takeInstallationLock`. The caller keeps ownership of it */
  constructor(client: pg.Client, options: PreparationOptions) {
    this.client = client;
    this.#options = options;
    this.#limits = { ...defaults, ...options.limits };
  }

  /**
   * Runs `work` in a single transaction, of which each {@link transaction} is a part that may fail by itself. For a
   * database without the schema, which has no users who would wait: nothing is left behind if `work` fails.
   */
  async whole<T>(work: () => Promise<T>): Promise<T> {
    const { client } = this;
    try {
      await client.query("BEGIN");
      this.#isWhole = true;
      const result = await work();
      await client.query("COMMIT");
      return result;
    } catch (cause) {
      await client.query("ROLLBACK").catch(() => undefined);
      throw cause;
    } finally {
      this.#isWhole = false;
    }
  }

  /**
   * Runs `work` in one transaction. Retries it after a pause if a lock was not available in time.
   *
   * @param action action for the error message, to follow "could not"
   * @param tables tables that `work` locks against readers or writers; missing tables are
   * skipped
   * @throws HawserError `store_failed`, which names the blocking sessions, if they block for longer than the limit;
   * errors of `work`
   */
  async transaction(action: string, work: () => Promise<void>, tables: readonly string[] = []): Promise<void> {
    const { client } = this;
    const { lockMs } = this.#limits;
    const ordered = this.#isWhole ? [] : await this.#inLockOrder(tables);
    const [begin, commit, rollback] = this.#isWhole ? savepoint : transaction;
    await this.#retry(action, async (deadline) => {
      try {
        await client.query(begin);
        // An autovacuum yields to a session that waits longer than deadlock_timeout, but not to one that gives up
        // earlier. SHARE UPDATE EXCLUSIVE blocks neither readers nor writers while it waits.
        await this.#lock(ordered, "SHARE UPDATE EXCLUSIVE", deadline);
        await this.#lock(ordered, "ACCESS EXCLUSIVE", new Deadline(lockMs));
        await client.query(`SET LOCAL lock_timeout = ${lockMs}`);
        await work();
        await client.query(commit);
      } catch (cause) {
        await client.query(rollback).catch(() => undefined);
        throw cause;
      }
    });
  }

  /**
   * Runs a slow statement that blocks neither readers nor writers and may not run in a transaction: CREATE INDEX
   * CONCURRENTLY, VALIDATE CONSTRAINT.
   *
   * @param action as in {@link transaction}
   * @param work may be called more than once
   * @throws HawserError as in {@link transaction}
   */
  async outsideTransaction(action: string, work: () => Promise<void>): Promise<void> {
    const { client } = this;
    const { rows } = await client.query<{ before: string }>("SELECT current_setting('lock_timeout') AS before");
    await this.#retry(action, async ({ remainingMs }) => {
      await client.query(`SET lock_timeout = ${remainingMs}`);
      await work();
    });
    await client.query("SELECT set_config('lock_timeout', $1, false)", [rows[0]!.before]);
  }

  async #lock(tables: readonly string[], mode: string, deadline: Deadline): Promise<void> {
    for (const table of tables) {
      await this.client.query(`SET LOCAL lock_timeout = ${deadline.remainingMs}; LOCK TABLE ${table} IN ${mode} MODE`);
    }
  }

  /** Names with their schemas of those of the tables that exist, in the order in which they are locked. */
  async #inLockOrder(tables: readonly string[]): Promise<string[]> {
    const { rows } = await this.client.query<{ schema: string; name: string }>(tablesSql, [[...tables, ...peerFence]]);
    const present = new Map(rows.map(({ schema, name }) => [name, `${schema}.${name}`]));
    if (!tables.some((name) => present.has(name))) return [];
    return [...new Set([...lockOrder, ...tables])].flatMap((name) => present.get(name) ?? []);
  }

  async #retry(action: string, work: (deadline: Deadline) => Promise<void>): Promise<void> {
    const { pauseMs, noticeMs, limitMs } = this.#limits;
    const { signal } = this.#options;
    const deadline = new Deadline(limitMs);
    const last = new Deadline(limitMs + yieldLateMs);
    const pauses = new Backoff({ minMs: pauseMs, maxMs: Math.max(pauseMs, noticeMs) });
    await using watch = await this.#watch(action);
    for (;;) {
      try {
        await work(deadline);
        return;
      } catch (cause) {
        if (!retryable.has(sqlstateOf(cause) ?? "")) throw cause;
        if (last.isOver || (deadline.isOver && watch.isDone))
          throw blockedError(action, limitMs, watch.blockers, cause);
        await delay(pauses.failed(), signal);
        signal?.throwIfAborted();
      }
    }
  }

  async #watch(action: string): Promise<BlockerWatch> {
    const { address, onWait = () => undefined, signal } = this.#options;
    const { rows } = await this.client.query<{ pid: number }>("SELECT pg_catalog.pg_backend_pid() AS pid");
    let reported = "";
    const found = (blockers: readonly Blocker[]): void => {
      const pids = blockers.map(({ pid }) => pid).join();
      if (pids !== reported) onWait(`waiting for ${describe(blockers)}, to ${action}`);
      reported = pids;
    };
    const { noticeMs, lockMs } = this.#limits;
    return new BlockerWatch({ address, pid: rows[0]!.pid, afterMs: noticeMs, everyMs: lockMs / 4, signal, found });
  }
}

/** Session that holds a lock for which another session waits. A field is null if the login may not see it. */
interface Blocker {
  /** Server process id; 0 for a prepared transaction. */
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
  readonly kind: string | null;
  readonly transactionS: number | null;
  /** Null between two statements. */
  readonly statementS: number | null;
}

const blockersSql = `
  SELECT b.pid, a.usename AS role, nullif(a.application_name, '') AS application, a.backend_type AS kind,
         floor(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start))::integer AS "transactionS",
         CASE a.state WHEN 'active' THEN floor(extract(epoch FROM pg_catalog.clock_timestamp() - a.query_start))::integer END
           AS "statementS"
    FROM (SELECT DISTINCT p.pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) AS p (pid)) AS b
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
   ORDER BY a.xact_start NULLS LAST, b.pid
   LIMIT 3`;

/** Options of {@link BlockerWatch}. */
interface WatchOptions {
  readonly address: ClientSource;
  /** Process id of the session that may wait. */
  readonly pid: number;
  /** Time until the first query. */
  readonly afterMs: number;
  readonly everyMs: number;
  readonly signal: AbortSignal | undefined;
  found(blockers: readonly Blocker[]): void;
}

/** Queries repeatedly, in its own session, which sessions block another session. Ends when disposed. */
class BlockerWatch implements AsyncDisposable {
  /** Blocking sessions of the last query that found any. */
  blockers: readonly Blocker[] = [];
  readonly #options: WatchOptions;
  readonly #stop = new AbortController();
  readonly #polling: Promise<void>;
  #failed = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    const { signal } = options;
    this.#polling = this.#poll(AbortSignal.any([this.#stop.signal, ...(signal === undefined ? [] : [signal])])).catch(
      () => {
        // The watch fails, for example, if no session is available. The error then names no blocking sessions.
        this.#failed = true;
      },
    );
  }

  /** True if it has found a blocking session, or has failed and will find none. */
  get isDone(): boolean {
    return this.#failed || this.blockers.length > 0;
  }

  async #poll(ended: AbortSignal): Promise<void> {
    const { address, pid, afterMs, everyMs, found } = this.#options;
    if (!(await delay(afterMs, ended))) return;
    const { client } = await openSession(address, {
      // Destroys the socket, since Postgres may not answer a graceful end.
      onClient: (opening) => {
        const end = (): void => void opening.connection.stream.destroy();
        if (ended.aborted) end();
        else ended.addEventListener("abort", end, { once: true });
      },
    });
    do {
      const { rows } = await client.query<Blocker>(blockersSql, [pid]);
      if (rows.length === 0) continue;
      this.blockers = rows;
      found(rows);
    } while (await delay(everyMs, ended));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#polling;
  }
}

function describe(blockers: readonly Blocker[]): string {
  if (blockers.length === 0) return "another session";
  return blockers
    .map(({ pid, role, application, kind, transactionS, statementS }) => {
      if (pid === 0) return "a prepared transaction (see pg_prepared_xacts)";
      const who = [role === null ? kind : `"${role}"`, application].filter((word) => word !== null);
      const ages = [
        ...(transactionS === null ? [] : [`its transaction is ${transactionS} s old`]),
        ...(statementS === null ? [] : [`its statement ${statementS} s`]),
      ];
      const words = [who.join(", "), ages.join(", ")].filter((part) => part !== "");
      return `the session ${pid}${words.length === 0 ? "" : ` (${words.join("; ")})`}`;
    })
    .join(" and ");
}

function blockedError(action: string, limitMs: number, blockers: readonly Blocker[], cause: unknown): HawserError {
  const ends = blockers.filter(({ pid }) => pid > 0).map(({ pid }) => `SELECT pg_terminate_backend(${pid})`);
  const end = ends.length === 0 ? "" : `, or end it (${ends.join("; ")})`;
  return new HawserError(
    "store_failed",
    `could not ${action}: this needs a lock, but for ${limitMs / 1000} s it was held by ${describe(blockers)}`,
    { cause, remedy: `Wait until it has ended${end}, then try again` },
  );
}
