/**
 * Installation lock: sessions that prepare a database do so one after another. The lock is owned like a name, through a
 * row that other roles cannot lock. Before the step that creates that row, it is an advisory lock, which any login can
 * take.
 */

import { randomBytes } from "node:crypto";
import type pg from "pg";
import { tables } from "../../../generated/ts/rows/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { Deadline, delay } from "../../foundation/runtime/index.js";
import { leasePollMs, lockTimeoutMs } from "../store/index.js";
import { inspectSchema } from "./schema.js";

/** SQL expression: key of the advisory lock. */
export const installationLockKey = "pg_catalog.hashtextextended('hawser:migrate', 0)";

/** Key `what` of the installation lock in the owners table. */
export const installationOwner = "installation";

/** Time after which a process that prepares a database names the session that it waits for. */
export const turnNoticeMs = 5_000;
/** Maximum time that a process that prepares a database waits for another such process, and for locks. */
export const turnLimitMs = 300_000;

/** Sessions of this database that hold an advisory lock. */
const lockedSql = `
  SELECT l.pid, (l.classid::bigint << 32) | l.objid::bigint AS key
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1`;

const activitySql = "SELECT a.pid, a.usename AS role, a.application_name AS application";

const sql = {
  // A login that may not write the row, or from which row security hides it, gets a specific error later.
  hasOwners: `
    SELECT EXISTS (
      SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
       WHERE n.nspname || '.' || c.relname = '${tables.owner}'
         AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
         AND NOT (c.relrowsecurity AND pg_catalog.row_security_active(c.oid))
    ) AS has_owners`,
  // Does not wait: CREATE INDEX CONCURRENTLY of the lock's holder would wait for the snapshot of the waiting statement.
  lock: `SELECT pg_catalog.pg_try_advisory_lock(${installationLockKey}) AS locked`,
  holder: `${activitySql} FROM (${lockedSql}) AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid WHERE l.key = ${installationLockKey}`,
  // As in hawser.own_name.
  live: "SELECT pg_catalog.pg_try_advisory_lock($1)",
  own: `
    UPDATE ${tables.owner} AS o SET epoch = o.epoch + 1, pid = pg_catalog.pg_backend_pid(), life = $1
      FROM (SELECT n.what, n.pid, n.life FROM ${tables.owner} AS n WHERE n.what = '${installationOwner}' FOR UPDATE SKIP LOCKED) AS n
     WHERE o.what = n.what
       AND NOT EXISTS (SELECT FROM (${lockedSql}) AS l WHERE l.pid = n.pid AND l.key = n.life AND l.pid <> pg_catalog.pg_backend_pid())`,
  owner: `${activitySql} FROM ${tables.owner} AS o JOIN pg_catalog.pg_stat_activity AS a ON a.pid = o.pid WHERE o.what = '${installationOwner}'`,
} as const;

interface Holder {
  readonly pid: number;
  readonly role: string | null;
  readonly application: string | null;
}

/** Time limits of {@link takeInstallationLock}. */
export interface LockLimits {
  /** Time until the holder is first reported. */
  readonly noticeMs: number;
  readonly limitMs: number;
}

/**
 * Waits until no other session prepares the database, and takes the lock until the client ends. If the schema did not
 * exist, call this function again after its creation: the client owns the lock through its row only then.
 *
 * @param onWait receives a message about the holder if the wait takes long
 * @throws HawserError `store_failed`, which names the holder, if the lock is not released in time; `name_occupied` if
 * the schema `hawser` or an object in it is not Hawser's
 */
export async function takeInstallationLock(
  client: pg.Client,
  onWait: (line: string) => void,
  { noticeMs, limitMs }: LockLimits = { noticeMs: turnNoticeMs, limitMs: turnLimitMs },
): Promise<void> {
  const deadline = new Deadline(limitMs);
  await client.query("SET statement_timeout = 0");
  let reported = "";
  const isOwned = await hasOwners(client);
  const take = isOwned ? await rowTaker(client) : () => takeAdvisoryLock(client);
  for (let waitMs = noticeMs; !(await takenWithin(take, waitMs)); waitMs = Math.min(noticeMs, deadline.remainingMs)) {
    const holder = await holderOf(client, isOwned ? sql.owner : sql.holder);
    if (deadline.isOver) {
      throw new HawserError(
        "store_failed",
        `the database is being prepared by ${holder}, which has not finished within ${limitMs / 1000} s. If it is not an ` +
          "active installation: SELECT pg_terminate_backend(pid) with its pid, then try again",
      );
    }
    if (holder !== reported) onWait(`waiting for ${holder}, which prepares this database`);
    reported = holder;
  }
  await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
}

/** Returns true if the owners table exists and is writable. First checks that the owner of the schema is trusted. */
async function hasOwners(client: pg.Client): Promise<boolean> {
  await inspectSchema(client);
  const { rows } = await client.query<{ has_owners: boolean }>(sql.hasOwners);
  return rows[0]!.has_owners;
}

async function takenWithin(take: () => Promise<boolean>, waitMs: number): Promise<boolean> {
  const deadline = new Deadline(waitMs);
  while (!(await take())) {
    if (deadline.isOver) return false;
    await delay(Math.min(leasePollMs, deadline.remainingMs));
  }
  return true;
}

async function rowTaker(client: pg.Client): Promise<() => Promise<boolean>> {
  // The session holds an advisory lock on this key until it ends, which proves that it lives.
  const lifeKey = randomBytes(8).readBigInt64BE();
  await client.query(sql.live, [lifeKey]);
  return async () => (await client.query(sql.own, [lifeKey])).rowCount === 1;
}

/** The lock ends with the session. */
async function takeAdvisoryLock(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>(sql.lock);
  return rows[0]!.locked;
}

async function holderOf(client: pg.Client, text: string): Promise<string> {
  const { rows } = await client.query<Holder>(text);
  const [holder] = rows;
  if (holder === undefined) return "another session";
  const application = holder.application === null || holder.application === "" ? "" : `, ${holder.application}`;
  return `the session ${holder.pid} (${holder.role === null ? "a dropped role" : `"${holder.role}"`}${application})`;
}
