/**
 * Whether somebody holds a name, looked at without disturbing anybody: a probe of the lock would be in the way of whoever
 * takes the name at that moment.
 */

import { errorTable } from "../../generated/ts/errors/errors.js";
import { StoreError } from "../errors/index.js";
import { isServerError } from "../postgres/index.js";

/** An SQL condition: a process holds the lease of the name, which is given as an SQL expression. */
export function leaseHeldSql(name: string): string {
  return `EXISTS (
    SELECT FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('hawser:lease:' || ${name}, 0)
  )`;
}

/**
 * Calls a function that refuses to work while a process has the name.
 *
 * @param remedy what the user can do, to follow "is running;"
 * @throws StoreError `name_in_use` if a process has it; otherwise what `call` throws
 */
export async function unlessRunning<T>(name: string, call: () => Promise<T>, remedy = "stop it first"): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const cause = StoreError.is(error) ? error.cause : undefined;
    if (!isServerError(cause) || cause.code !== errorTable.name_in_use.sqlstate) throw error;
    throw new StoreError("name_in_use", `"${name}" is running; ${remedy}`, { cause: error });
  }
}
