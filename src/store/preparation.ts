/**
 * The session in which a database is prepared while others work in it, to whom it gives way.
 *
 * A strong lock that is not free holds up more than the session that waits for it: all that come later queue behind it, even
 * those that would not wait for each other. So locks are waited for in short tries, and between two of them the others go on.
 * What others are not held up by, such as CREATE INDEX CONCURRENTLY, is waited for in one go.
 *
 * If it takes long, a second session asks Postgres who is in the way.
 */
import type pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { type DatabaseAddress, openSession, sqlstateOf } from "../postgres/index.js";
import { Backoff, Deadline, delay } from "../runtime/index.js";

/** How long locks are waited for, in milliseconds. */
export interface YieldLimits {
  /** For all locks of a transaction together, in one try. Others wait so long at most. */
  readonly lockMs: number;
  /** The first pause between two tries; pauses double up to `noticeMs`. */
  readonly pauseMs: number;
  /** Until the sessions that are in the way are named for the first time. */
  readonly noticeMs: number;
  /** For all tries together. */
  readonly limitMs: number;
}

const defaults: YieldLimits = {
  lockMs: storeConstants.yieldLockMs,
  pauseMs: storeConstants.yieldPauseMs,
  noticeMs: storeConstants.turnNoticeMs,
  limitMs: storeConstants.turnLimitMs,
};

/** Collaborators and limits of {@link Preparation}. */
export interface PreparationOptions {
  /** The address that the client is connected to. */
  readonly address: DatabaseAddress;
  /** Is told which sessions it waits for, if that takes a while. */
  readonly tell?: ((line: string) => void) | undefined;
  /** Ends pauses. */
  readonly signal?: AbortSignal | undefined;
  readonly limits?: Partial<YieldLimits> | undefined;
}

/** Where each write of a peer begins, for a short time: whoever has these meets no half-done one in other tables. */
const peerFence: readonly string[] = ["owners", "fences"];

/**
 * Tables with which transactions begin: those of subscribed functions, of relays of the outbox, of transactional handlers, of
 * writes of peers. A transaction that has one of them waits for none before it. All other tables are locked behind these. Tables
 * of older steps are among them.
 */
const lockOrder: readonly string[] = [
  ...["bridge_lead", "bridge_fence", "outbox_turns", "peer_outbox_turns", "peers"],
  ...peerFence,
];

/** SQLSTATEs of what may go well a little later: lock_not_available, deadlock_detected. */
const passing = new Set(["55P03", "40P01"]);

const tablesSql = `
  SELECT c.relname AS name FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
   WHERE n.nspname = 'hawser' AND c.relkind IN ('r', 'p') AND c.relname = ANY ($1)`;

/** The session that prepares a database. */
export class Preparation {
  readonly client: pg.Client;
  readonly #options: PreparationOptions;
  readonly #limits: YieldLimits;

  /** @param client has the turn: see `takeTurn`. It stays the caller's. */
  constructor(client: pg.Client, options: PreparationOptions) {
    this.client = client;
    this.#options = options;
    this.#limits = { ...defaults, ...options.limits };
  }

  /**
   * Runs `work` in one transaction; again, after a pause, if a lock was not free in time.
   *
   * @param action what could not be done if it fails, to follow "could not"
   * @param tables those of the schema `hawser` that `work` locks against readers or writers; absent ones are left out
   * @throws HawserError `store_failed`, which names the sessions in the way, if they stay for longer than the limit; and
   * what `work` throws
   */
  async transaction(action: string, work: () => Promise<void>, tables: readonly string[] = []): Promise<void> {
    const { client } = this;
    const { lockMs } = this.#limits;
    const ordered = await this.#inLockOrder(tables);
    await this.#tries(action, async (deadline) => {
      try {
        await client.query("BEGIN");
        // An autovacuum ends for a session that waits longer than deadlock_timeout, and not for one that gives up before. While
        // this one waits, it holds up no reader or writer.
        await this.#lock(ordered, "SHARE UPDATE EXCLUSIVE", deadline);
        await this.#lock(ordered, "ACCESS EXCLUSIVE", new Deadline(lockMs));
        await client.query(`SET LOCAL lock_timeout = ${lockMs}`);
        await work();
        await client.query("COMMIT");
      } catch (cause) {
        await client.query("ROLLBACK").catch(() => undefined);
        throw cause;
      }
    });
  }

  /**
   * Runs what may not be in a transaction, or takes long, and holds up no reader or writer: CREATE INDEX CONCURRENTLY, VALIDATE
   * CONSTRAINT.
   *
   * @param action as for {@link transaction}
   * @param work may be called again
   * @throws HawserError as {@link transaction}
   */
  async outsideTransaction(action: string, work: () => Promise<void>): Promise<void> {
    const { client } = this;
    const { rows } = await client.query<{ before: string }>("SELECT current_setting('lock_timeout') AS before");
    await this.#tries(action, async ({ remainingMs }) => {
      await client.query(`SET lock_timeout = ${remainingMs}`);
      await work();
    });
    await client.query("SELECT set_config('lock_timeout', $1, false)", [rows[0]!.before]);
  }

  async #lock(tables: readonly string[], mode: string, deadline: Deadline): Promise<void> {
    for (const table of tables) {
      await this.client.query(
        `SET LOCAL lock_timeout = ${deadline.remainingMs}; LOCK TABLE hawser.${table} IN ${mode} MODE`,
      );
    }
  }

  async #inLockOrder(tables: readonly string[]): Promise<string[]> {
    const { rows } = await this.client.query<{ name: string }>(tablesSql, [[...tables, ...peerFence]]);
    const present = new Set(rows.map(({ name }) => name));
    if (!tables.some((name) => present.has(name))) return [];
    return [...new Set([...lockOrder, ...tables])].filter((name) => present.has(name));
  }

  async #tries(action: string, work: (deadline: Deadline) => Promise<void>): Promise<void> {
    const { pauseMs, noticeMs, limitMs } = this.#limits;
    const { signal } = this.#options;
    const deadline = new Deadline(limitMs);
    const last = new Deadline(limitMs + storeConstants.yieldLateMs);
    const pauses = new Backoff({ minMs: pauseMs, maxMs: Math.max(pauseMs, noticeMs) });
    await using watch = await this.#watch(action);
    for (;;) {
      try {
        await work(deadline);
        return;
      } catch (cause) {
        if (!passing.has(sqlstateOf(cause) ?? "")) throw cause;
        if (last.isOver || (deadline.isOver && watch.isDone)) throw gaveUp(action, limitMs, watch.blockers, cause);
        await delay(pauses.failed(), signal);
        signal?.throwIfAborted();
      }
    }
  }

  async #watch(action: string): Promise<BlockerWatch> {
    const { address, tell = () => undefined, signal } = this.#options;
    const { rows } = await this.client.query<{ pid: number }>("SELECT pg_catalog.pg_backend_pid() AS pid");
    let told = "";
    const found = (blockers: readonly Blocker[]): void => {
      const pids = blockers.map(({ pid }) => pid).join();
      if (pids !== told) tell(`waiting for ${textOf(blockers)}, to ${action}`);
      told = pids;
    };
    const { noticeMs, lockMs } = this.#limits;
    return new BlockerWatch({ address, pid: rows[0]!.pid, afterMs: noticeMs, everyMs: lockMs / 4, signal, found });
  }
}

/** A session that has a lock for which another one waits. What the login may not see of it is null. */
interface Blocker {
  /** 0: a prepared transaction. */
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

/** What {@link BlockerWatch} asks, and whom it tells. */
interface WatchOptions {
  readonly address: DatabaseAddress;
  /** Of the session that may wait. */
  readonly pid: number;
  /** Until it asks for the first time. */
  readonly afterMs: number;
  readonly everyMs: number;
  readonly signal: AbortSignal | undefined;
  found(blockers: readonly Blocker[]): void;
}

/** Asks again and again, in a session of its own, for whom another session waits; until it is disposed. */
class BlockerWatch implements AsyncDisposable {
  /** The last ones that were found. */
  blockers: readonly Blocker[] = [];
  readonly #options: WatchOptions;
  readonly #stop = new AbortController();
  readonly #asking: Promise<void>;
  #failed = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    const { signal } = options;
    this.#asking = this.#ask(AbortSignal.any([this.#stop.signal, ...(signal === undefined ? [] : [signal])])).catch(
      () => {
        // Without a free session, for example: nobody is named then.
        this.#failed = true;
      },
    );
  }

  /** It has found somebody, or will find nobody. */
  get isDone(): boolean {
    return this.#failed || this.blockers.length > 0;
  }

  async #ask(ended: AbortSignal): Promise<void> {
    const { address, pid, afterMs, everyMs, found } = this.#options;
    if (!(await delay(afterMs, ended))) return;
    const { client } = await openSession(address, {
      // Not in good order: Postgres may not answer.
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
    await this.#asking;
  }
}

function textOf(blockers: readonly Blocker[]): string {
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

function gaveUp(action: string, limitMs: number, blockers: readonly Blocker[], cause: unknown): HawserError {
  const ends = blockers.filter(({ pid }) => pid > 0).map(({ pid }) => `SELECT pg_terminate_backend(${pid})`);
  const end = ends.length === 0 ? "" : `, or end it (${ends.join("; ")})`;
  return new HawserError(
    "store_failed",
    `could not ${action}: this needs a lock, and for ${limitMs / 1000} s the way was blocked by ${textOf(blockers)}`,
    { cause, remedy: `Wait until it has ended${end}, then try again` },
  );
}
