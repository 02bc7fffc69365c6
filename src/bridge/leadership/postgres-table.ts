/**
 * Leadership and its fence in Postgres.
 *
 * Epochs grow in steps of random size. A failover may lose the commit of a process that took leadership; another one then
 * takes it from the same epoch, while the first may not know yet. By its step it has another epoch all the same. (The server's
 * clock, from which peers' names take their epochs, is not enough: that of a standby may be behind.)
 *
 * The fence never goes down: the statement of a process that gave up long ago may still be waiting for its lock.
 */
import pg from "pg";
import { notifyChannels, tables } from "../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../../postgres/index.js";
import type {
  Confirmation,
  FenceHolders,
  LeadershipReading,
  LeadershipRow,
  LeadershipTable,
  Progress,
  Term,
} from "./table.js";

const { leaderHeartbeatMs, fenceWaitMs } = bridgeConstants;

/** A common table expression, with a row while the epoch $1 leads: as each batch asks. Holds the fence to the transaction's end. */
export const fenceSql = "fence AS MATERIALIZED (SELECT FROM hawser.fence_batch($1::bigint) AS f WHERE f.held)";

const sqlState = { lockNotAvailable: "55P03", readOnly: "25006", notPermitted: "42501" } as const;

/** SQL of the present time in milliseconds, and not that of the beginning of the transaction. */
const serverTime = "(extract(epoch FROM clock_timestamp()) * 1000)";

const mine = "id = 1 AND epoch = $1::bigint AND owner = $2::text";
const confirmation = `${serverTime}::float8 AS server_time, (SELECT f.epoch FROM ${tables.bridgeFence} AS f) AS fenced_epoch`;

const sql = {
  read: `
    SELECT epoch, owner, beat, (extract(epoch FROM progress_at) * 1000)::float8 AS progress_at,
           (extract(epoch FROM complete_since) * 1000)::float8 AS complete_since,
           (extract(epoch FROM complete_until) * 1000)::float8 AS complete_until, behind,
           ${serverTime}::float8 AS server_time
      FROM ${tables.bridgeLead}`,
  heartbeat: `
    UPDATE ${tables.bridgeLead}
       SET beat = greatest(beat, 0) + 1, progress_at = to_timestamp($3::bigint / 1000.0), behind = $5::text,
           complete_since = to_timestamp($4::bigint / 1000.0), complete_until = to_timestamp($6::bigint / 1000.0)
     WHERE ${mine} RETURNING ${confirmation}`,
  confirm: `UPDATE ${tables.bridgeLead} SET beat = beat - 1 WHERE ${mine} RETURNING ${confirmation}`,
  take: `
    UPDATE ${tables.bridgeLead} SET epoch = epoch + 1 + floor(random() * 1048576)::bigint, owner = $3::text, beat = 0
     WHERE id = 1 AND epoch = $1::bigint AND beat = $2::bigint RETURNING epoch`,
  fenceLockTimeout: "SELECT set_config('lock_timeout', $1::text, false)",
  fence: `UPDATE ${tables.bridgeFence} SET epoch = $1::bigint WHERE id = 1 AND epoch < $1::bigint`,
  // A batch locks the row, which shows as a lock of the table until its transaction ends. Batches of our own epoch do not begin
  // before the fence is raised.
  endHolders: `
    WITH held AS (
      SELECT DISTINCT l.pid, a.usename AS role,
             EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
                      WHERE m.member = a.usesysid AND g.rolname = 'hawser_executor')
             OR EXISTS (SELECT FROM ${tables.executorLogin} AS e WHERE e.user_name = a.usename) AS is_executor
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
       WHERE l.locktype = 'relation' AND l.relation = '${tables.bridgeFence}'::regclass AND l.granted
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
         AND l.mode NOT IN ('AccessShareLock', 'SIReadLock') AND l.pid <> pg_catalog.pg_backend_pid()
         AND EXISTS (SELECT FROM ${tables.bridgeLead} WHERE ${mine})
    )
    SELECT pid, role, is_executor, CASE WHEN is_executor THEN pg_catalog.pg_terminate_backend(pid) END AS ended FROM held`,
  release: `
    WITH released AS (
      UPDATE ${tables.bridgeLead} SET owner = NULL, progress_at = coalesce(to_timestamp($3::bigint / 1000.0), progress_at),
             beat = CASE WHEN $3 IS NULL AND beat <= 0 THEN beat - 1 ELSE greatest(beat, 0) + 1 END,
             complete_since = CASE WHEN $3 IS NULL THEN complete_since ELSE to_timestamp($4::bigint / 1000.0) END,
             behind = CASE WHEN $3 IS NULL THEN behind ELSE $5::text END,
             complete_until = CASE WHEN $3 IS NULL THEN complete_until ELSE to_timestamp($6::bigint / 1000.0) END
       WHERE ${mine} RETURNING id
    )
    SELECT pg_notify('${notifyChannels.natsHandler}', '{}') FROM released`,
} as const;

interface ReadRow {
  readonly epoch: bigint;
  readonly owner: string | null;
  readonly beat: bigint;
  readonly progress_at: number | null;
  readonly complete_since: number | null;
  readonly complete_until: number | null;
  readonly behind: string | null;
  readonly server_time: number;
}

interface ConfirmationRow {
  readonly server_time: number;
  readonly fenced_epoch: bigint;
}

interface HolderRow {
  readonly pid: number;
  readonly role: string | null;
  readonly is_executor: boolean | null;
  readonly ended: boolean | null;
}

export class PostgresLeadershipTable implements LeadershipTable {
  readonly #session: PostgresSession;

  /** @param session for nothing else: another query would make the heartbeat late */
  constructor(session: PostgresSession) {
    this.#session = session;
  }

  async read(): Promise<LeadershipReading> {
    const isStandby = await this.#session.isStandby();
    const { rows, sentAt, heardAt } = await this.#timed<ReadRow>(sql.read, []);
    const { epoch, owner, beat, progress_at, complete_since, complete_until, behind, server_time } = rows[0]!;
    return {
      row: {
        ...{ epoch, owner: owner ?? undefined, beat },
        ...{ progressAt: progress_at ?? undefined, completeSince: complete_since ?? undefined },
        completeUntil: complete_until ?? undefined,
        behind: behindOf(behind),
      },
      clock: { serverTime: server_time, sentAt, heardAt },
      isStandby,
    };
  }

  heartbeat({ epoch, owner }: Term, progress: Progress): Promise<Confirmation | undefined> {
    return this.#confirmed(sql.heartbeat, [epoch, owner, ...valuesOf(progress)]);
  }

  confirm({ epoch, owner }: Term): Promise<Confirmation | undefined> {
    return this.#confirmed(sql.confirm, [epoch, owner]);
  }

  async take({ epoch, beat }: LeadershipRow, owner: string): Promise<bigint | undefined> {
    const [taken] = await this.#session.query<{ epoch: bigint }>(sql.take, [epoch, beat, owner]);
    return taken?.epoch;
  }

  async fence(epoch: bigint): Promise<boolean> {
    await this.#session.query(sql.fenceLockTimeout, [`${fenceWaitMs}`]);
    try {
      await this.#session.query(sql.fence, [epoch], fenceWaitMs + 2 * leaderHeartbeatMs);
      return true;
    } catch (error) {
      if (has(error, sqlState.lockNotAvailable)) return false;
      throw error;
    }
  }

  async endHolders({ epoch, owner }: Term): Promise<FenceHolders> {
    let holders: HolderRow[];
    try {
      holders = await this.#session.query<HolderRow>(sql.endHolders, [epoch, owner]);
    } catch (error) {
      if (has(error, sqlState.notPermitted)) return { isRefused: true, ended: 0, foreign: [] };
      throw error;
    }
    return {
      isRefused: false,
      ended: holders.filter(({ ended }) => ended === true).length,
      foreign: holders
        .filter(({ is_executor }) => is_executor !== true)
        .map(({ pid, role }) => ({ pid, role: role ?? "a role that is gone" })),
    };
  }

  async release({ epoch, owner }: Term, progress: Progress): Promise<void> {
    await this.#session.query(sql.release, [epoch, owner, ...valuesOf(progress)]);
  }

  async #confirmed(text: string, values: readonly unknown[]): Promise<Confirmation | undefined> {
    try {
      const { rows, sentAt, heardAt } = await this.#timed<ConfirmationRow>(text, values);
      const [row] = rows;
      if (row === undefined) return undefined;
      return { clock: { serverTime: row.server_time, sentAt, heardAt }, fencedEpoch: row.fenced_epoch };
    } catch (error) {
      // The same address is a standby now.
      if (has(error, sqlState.readOnly)) return undefined;
      throw error;
    }
  }

  async #timed<Row extends object>(text: string, values: readonly unknown[]) {
    const sentAt = performance.now();
    const rows = await this.#session.query<Row>(text, values);
    return { rows, sentAt, heardAt: performance.now() };
  }
}

function has(error: unknown, code: string): boolean {
  return error instanceof pg.DatabaseError && error.code === code;
}

function behindOf(text: string | null): ReadonlyMap<bigint, number> {
  const each: Record<string, number> = JSON.parse(text ?? "{}");
  return new Map(Object.entries(each).map(([id, at]) => [BigInt(id), at]));
}

/** Values of the parameters `$3` to `$6` of the statements. */
function valuesOf({ progressAt, behind, completeSince, completeUntil }: Progress): unknown[] {
  const each = [...behind].map(([id, at]) => [String(id), wholeMs(at)]);
  const behindText = each.length === 0 ? null : JSON.stringify(Object.fromEntries(each));
  return [wholeMs(progressAt), wholeMs(completeSince, Math.ceil), behindText, wholeMs(completeUntil)];
}

/** Rounds down, because the time up to which all is done is a lower bound. */
function wholeMs(time: number | undefined, round = Math.floor): number | null {
  return time === undefined ? null : round(time);
}
