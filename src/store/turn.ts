/**
 * Taking turns: those who prepare a database do it one after another.
 */
import type pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { StoreError } from "../errors/index.js";
import { isServerError } from "../postgres/index.js";
import { Deadline } from "../runtime/index.js";

/** The key, as an expression, of the advisory lock. */
export const installationTurn = "pg_catalog.hashtextextended('hawser:migrate', 0)";

const { turnNoticeMs, turnLimitMs, lockTimeoutMs } = storeConstants;

/** SQLSTATE of a lock that was not to be had in time. */
const lockNotAvailable = "55P03";

const sql = {
  lock: `SELECT pg_catalog.pg_advisory_lock(${installationTurn})`,
  holder: `
    SELECT l.pid, a.usename AS role, a.application_name AS application
      FROM pg_catalog.pg_locks AS l
      JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
      LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND ((l.classid::bigint << 32) | l.objid::bigint) = ${installationTurn}`,
} as const;

interface Holder {
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
}

/** How long it waits. */
export interface TurnLimits {
  /** Until it first says which session it waits for. */
  readonly noticeMs: number;
  readonly limitMs: number;
}

/**
 * Waits until nobody else prepares the database. Others wait until the client ends.
 *
 * @param tell is told which session it waits for, if that takes a while
 * @throws StoreError `store_failed`, which names the session that holds the turn, if it is not given back in time
 */
export async function takeTurn(
  client: pg.Client,
  tell: (line: string) => void,
  { noticeMs, limitMs }: TurnLimits = { noticeMs: turnNoticeMs, limitMs: turnLimitMs },
): Promise<void> {
  const deadline = new Deadline(limitMs);
  await client.query("SET statement_timeout = 0");
  let told = "";
  for (let waitMs = noticeMs; !(await locked(client, waitMs)); waitMs = Math.min(noticeMs, deadline.remainingMs)) {
    const holder = await holderOf(client);
    if (deadline.isOver) {
      throw new StoreError(
        "store_failed",
        `the database is being prepared by ${holder}, which has not ended within ${limitMs / 1000} s. If that is no ` +
          "installation at work: SELECT pg_terminate_backend(pid) with its pid, then try again",
      );
    }
    if (holder !== told) tell(`waiting for ${holder}, which prepares this database`);
    told = holder;
  }
  await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
}

async function locked(client: pg.Client, waitMs: number): Promise<boolean> {
  await client.query(`SET lock_timeout = ${Math.max(waitMs, 1)}`);
  try {
    // Released with the session at the latest.
    await client.query(sql.lock);
    return true;
  } catch (error) {
    if (isServerError(error) && error.code === lockNotAvailable) return false;
    throw error;
  }
}

async function holderOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query<Holder>(sql.holder);
  const [holder] = rows;
  if (holder === undefined) return "another session";
  const application = holder.application === null || holder.application === "" ? "" : `, ${holder.application}`;
  return `the session ${holder.pid} (${holder.role === null ? "a role that is gone" : `"${holder.role}"`}${application})`;
}
