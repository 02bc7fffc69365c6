/**
 * The leader's row and fence in Postgres: the rows `serve` of `hawser_data.owners` and `hawser_data.fences`, which only functions
 * of Hawser write and lock.
 */
import pg from "pg";
import { tables } from "../../../../generated/ts/rows/nats.js";
import { tables as peerTables } from "../../../../generated/ts/rows/peer.js";
import { bridgeConstants } from "../../../../generated/ts/settings/nats.js";
import { type PostgresSession, relationOidSql } from "../../../foundation/postgres/index.js";
import type {
  ClockSample,
  FenceHolders,
  LeadershipReading,
  LeadershipRow,
  LeadershipTable,
  Progress,
  Raised,
} from "./table.js";

const { leaderHeartbeatMs, fenceWaitMs } = bridgeConstants;

/**
 * CTE that has a row if $1 is the epoch of the fence. The row of the fence then stays locked until the transaction
 * ends.
 */
export const fenceSql = "fence AS MATERIALIZED (SELECT FROM hawser.fence_batch($1::bigint) AS f WHERE f.held)";

const sqlState = { readOnly: "25006", notPermitted: "42501" } as const;

/** Current server time in milliseconds; now() would be the start of the transaction. */
const serverTime = "(extract(epoch FROM clock_timestamp()) * 1000)::float8 AS server_time";

const sql = {
  read: `
    SELECT epoch, owner, beat, (state ->> 'progress_at')::float8 AS progress_at,
           (state ->> 'complete_since')::float8 AS complete_since, (state ->> 'complete_until')::float8 AS complete_until,
           state ->> 'behind' AS behind, ${serverTime}
      FROM hawser.read_lead()`,
  take: "SELECT epoch FROM hawser.take_lead($1, $2, $3)",
  raise: `SELECT held, raised, ${serverTime} FROM hawser.raise_lead($1, $2)`,
  keep: `SELECT held, ${serverTime} FROM hawser.keep_lead($1, $2, $3, $4)`,
  // `pg_locks` shows no row locks, but a session that has locked the row of the fence also holds a lock of the table
  // until its transaction ends. Batches of our own epoch do not start before the fence is raised. Peers that write
  // under their names lock other rows of the table, so only sessions of roles that can lock this row are selected.
  endHolders: `
    WITH held AS (
      SELECT DISTINCT l.pid, a.usename AS role, pg_catalog.pg_has_role(a.usesysid, 'hawser_bridge', 'MEMBER') AS is_bridge,
             EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
                      WHERE m.member = a.usesysid AND g.rolname = 'hawser_executor')
             OR EXISTS (SELECT FROM ${tables.executorLogin} AS e WHERE e.user_name = a.usename) AS is_executor
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
       WHERE l.locktype = 'relation' AND l.relation = ${relationOidSql(peerTables.fence)} AND l.granted
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
         AND l.mode NOT IN ('AccessShareLock', 'SIReadLock') AND l.pid <> pg_catalog.pg_backend_pid()
         AND EXISTS (SELECT FROM hawser.read_lead() AS b WHERE b.owner = $1 AND b.epoch = $2)
    )
    SELECT pid, role, is_executor, CASE WHEN is_executor THEN pg_catalog.pg_terminate_backend(pid) END AS ended
      FROM held WHERE is_executor OR is_bridge`,
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

interface HolderRow {
  readonly pid: number;
  readonly role: string | null;
  readonly is_executor: boolean | null;
  readonly ended: boolean | null;
}

export class PostgresLeadershipTable implements LeadershipTable {
  readonly #session: PostgresSession;
  readonly #owner: string;

  /**
   * @param session session for short queries only: a long one would delay the heartbeat
   * @param owner random id of this process
   */
  constructor(session: PostgresSession, owner: string) {
    this.#session = session;
    this.#owner = owner;
  }

  async read(): Promise<LeadershipReading> {
    const isStandby = await this.#session.isStandby();
    const { row, clock } = await this.#timed<ReadRow>(sql.read, []);
    const { epoch, owner, beat, progress_at, complete_since, complete_until, behind } = row;
    return {
      row: {
        ...{ epoch, owner: owner ?? undefined, beat },
        ...{ progressAt: progress_at ?? undefined, completeSince: complete_since ?? undefined },
        completeUntil: complete_until ?? undefined,
        behind: behindOf(behind),
      },
      clock,
      isStandby,
    };
  }

  async heartbeat(epoch: bigint, progress: Progress): Promise<ClockSample | undefined> {
    return (await this.#whileHeld(sql.keep, [this.#owner, epoch, stateOf(progress), false]))?.clock;
  }

  async take({ epoch, beat }: LeadershipRow): Promise<bigint | undefined> {
    const [taken] = await this.#session.query<{ epoch: bigint | null }>(sql.take, [this.#owner, epoch, beat]);
    return taken!.epoch ?? undefined;
  }

  async raise(epoch: bigint): Promise<Raised | undefined> {
    const limitMs = fenceWaitMs + 2 * leaderHeartbeatMs;
    const answer = await this.#whileHeld<{ raised: boolean }>(sql.raise, [this.#owner, epoch], limitMs);
    return answer && { clock: answer.clock, isRaised: answer.row.raised };
  }

  async endHolders(epoch: bigint): Promise<FenceHolders> {
    let holders: HolderRow[];
    try {
      holders = await this.#session.query<HolderRow>(sql.endHolders, [this.#owner, epoch]);
    } catch (error) {
      if (hasSqlState(error, sqlState.notPermitted)) return { isRefused: true, ended: 0, foreign: [] };
      throw error;
    }
    return {
      isRefused: false,
      ended: holders.filter(({ ended }) => ended === true).length,
      foreign: holders
        .filter(({ is_executor }) => is_executor !== true)
        .map(({ pid, role }) => ({ pid, role: role ?? "a dropped role" })),
    };
  }

  async release(epoch: bigint, progress: Progress): Promise<void> {
    const state = progress.progressAt === undefined ? null : stateOf(progress);
    await this.#session.query(sql.keep, [this.#owner, epoch, state, true]);
  }

  async #whileHeld<Row extends object>(text: string, values: readonly unknown[], limitMs?: number) {
    try {
      const answer = await this.#timed<Row & { readonly held: boolean }>(text, values, limitMs);
      return answer.row.held ? answer : undefined;
    } catch (error) {
      // The server at this address is a standby now.
      if (hasSqlState(error, sqlState.readOnly)) return undefined;
      throw error;
    }
  }

  async #timed<Row extends object>(text: string, values: readonly unknown[], limitMs?: number) {
    const sentAt = performance.now();
    const [row] = await this.#session.query<Row & { readonly server_time: number }>(text, values, limitMs);
    return { row: row!, clock: { serverTime: row!.server_time, sentAt, heardAt: performance.now() } };
  }
}

function hasSqlState(error: unknown, code: string): boolean {
  return error instanceof pg.DatabaseError && error.code === code;
}

function behindOf(text: string | null): ReadonlyMap<bigint, number> {
  const each: Record<string, number> = JSON.parse(text ?? "{}");
  return new Map(Object.entries(each).map(([id, at]) => [BigInt(id), at]));
}

/** JSON of the progress as the row stores it, in whole milliseconds. Lower bounds are rounded down, upper bounds up. */
function stateOf({ progressAt, behind, completeSince, completeUntil }: Progress): string {
  const down = (time: number | undefined) => time && Math.floor(time);
  return JSON.stringify({
    progress_at: down(progressAt),
    complete_since: completeSince && Math.ceil(completeSince),
    complete_until: down(completeUntil),
    behind: behind.size === 0 ? undefined : Object.fromEntries([...behind].map(([id, at]) => [String(id), down(at)])),
  });
}
