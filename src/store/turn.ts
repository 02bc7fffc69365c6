/**
 * Taking turns: those who prepare a database do it one after another. The turn is owned like a name: by a row that no other
 * role can lock. Where there is no such row yet, before the first installation or the step that makes it, an advisory lock
 * stands for it, which any login can take.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { tables } from "../../generated/ts/rows/peer.js";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { Deadline, delay } from "../runtime/index.js";
import { inspectSchema } from "./schema.js";

/** The key, as an expression, of the advisory lock. */
export const installationTurn = "pg_catalog.hashtextextended('hawser:migrate', 0)";

/** The `what` of the turn among the owners. */
export const installationOwner = "installation";

const { turnNoticeMs, turnLimitMs, lockTimeoutMs, leasePollMs } = storeConstants;

/** Sessions of this database that have an advisory lock. */
const lockedSql = `
  SELECT l.pid, (l.classid::bigint << 32) | l.objid::bigint AS key
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_database AS d ON d.oid = l.database AND d.datname = pg_catalog.current_database()
   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1`;

const activitySql = "SELECT a.pid, a.usename AS role, a.application_name AS application";

const sql = {
  // Whoever may not write the row finds out later what else is missing.
  hasOwners: `
    SELECT EXISTS (
      SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
       WHERE n.nspname || '.' || c.relname = '${tables.owner}'
         AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
    ) AS has_owners`,
  // Not waited for: CREATE INDEX CONCURRENTLY, by whoever has it, would wait for the snapshot of the statement that waits.
  lock: `SELECT pg_catalog.pg_try_advisory_lock(${installationTurn}) AS locked`,
  holder: `${activitySql} FROM (${lockedSql}) AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid WHERE l.key = ${installationTurn}`,
  // As hawser.own_name.
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

/** How long it waits. */
export interface TurnLimits {
  /** Until it first says which session it waits for. */
  readonly noticeMs: number;
  readonly limitMs: number;
}

/**
 * Waits until nobody else prepares the database. Others wait until the client ends. To be called again once the schema is there,
 * if it was not: only then the client has the turn by its row.
 *
 * @param tell is told which session it waits for, if that takes a while
 * @throws HawserError `store_failed`, which names the session that holds the turn, if it is not given back in time;
 * `name_occupied` if the schema `hawser`, or something in it, is not Hawser's
 */
export async function takeTurn(
  client: pg.Client,
  tell: (line: string) => void,
  { noticeMs, limitMs }: TurnLimits = { noticeMs: turnNoticeMs, limitMs: turnLimitMs },
): Promise<void> {
  const deadline = new Deadline(limitMs);
  await client.query("SET statement_timeout = 0");
  let told = "";
  const isOwned = await hasOwners(client);
  const take = isOwned ? await owning(client) : () => locks(client);
  for (let waitMs = noticeMs; !(await taken(take, waitMs)); waitMs = Math.min(noticeMs, deadline.remainingMs)) {
    const holder = await holderOf(client, isOwned ? sql.owner : sql.holder);
    if (deadline.isOver) {
      throw new HawserError(
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

/** The rows of owners are there. Nothing of the schema is touched before its owner is known to be trusted. */
async function hasOwners(client: pg.Client): Promise<boolean> {
  await inspectSchema(client);
  const { rows } = await client.query<{ has_owners: boolean }>(sql.hasOwners);
  return rows[0]!.has_owners;
}

async function taken(take: () => Promise<boolean>, waitMs: number): Promise<boolean> {
  const deadline = new Deadline(waitMs);
  while (!(await take())) {
    if (deadline.isOver) return false;
    await delay(Math.min(leasePollMs, deadline.remainingMs));
  }
  return true;
}

async function owning(client: pg.Client): Promise<() => Promise<boolean>> {
  // Of this session, and held to its end.
  const life = randomBytes(8).readBigInt64BE();
  await client.query(sql.live, [life]);
  return async () => (await client.query(sql.own, [life])).rowCount === 1;
}

/** Released with the session at the latest. */
async function locks(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ locked: boolean }>(sql.lock);
  return rows[0]!.locked;
}

async function holderOf(client: pg.Client, text: string): Promise<string> {
  const { rows } = await client.query<Holder>(text);
  const [holder] = rows;
  if (holder === undefined) return "another session";
  const application = holder.application === null || holder.application === "" ? "" : `, ${holder.application}`;
  return `the session ${holder.pid} (${holder.role === null ? "a role that is gone" : `"${holder.role}"`}${application})`;
}
