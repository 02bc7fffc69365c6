/**
 * Whether somebody holds a name, looked at without disturbing anybody: a probe of the lock would be in the way of whoever
 * takes the name at that moment.
 */

/** An SQL condition: a process holds the lease of the name, which is given as an SQL expression. */
export function leaseHeldSql(name: string): string {
  return `EXISTS (
    SELECT FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ExclusiveLock'
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('hawser:lease:' || ${name}, 0)
  )`;
}
