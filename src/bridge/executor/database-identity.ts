/**
 * Which database of which server a session has reached. Whose functions are called and whose messages are handled has to be
 * one and the same: names and addresses do not tell, as several can lead to one server, and one to several.
 */

/** A database as a session finds it. */
export interface DatabaseIdentity {
  readonly name: string;
  readonly oid: string;
  /** Where the server is, as it says itself; null: the session comes by a local socket. */
  readonly address: string | null;
  /** When the server was started, in seconds since 1970: no two have been in the same microsecond. */
  readonly startedAt: string;
}

/** One row, a {@link DatabaseIdentity}. Any login may ask. The types of operands are exact, so that none of others is called. */
export const identitySql = `
  SELECT d.datname::text AS name, d.oid::text AS oid, host(inet_server_addr()) || ':' || inet_server_port()::text AS address,
         extract(epoch FROM pg_postmaster_start_time())::text AS "startedAt"
    FROM pg_database AS d WHERE d.datname = current_database()`;

/** Whether both are the same database of the same server, since the same start. */
export function isSameDatabase(one: DatabaseIdentity, other: DatabaseIdentity): boolean {
  return one.oid === other.oid && one.startedAt === other.startedAt;
}

/** For people: what was reached, and what should have been. */
export function differenceOf(reached: DatabaseIdentity, own: DatabaseIdentity): string {
  return `${shown(reached)}, and not ${shown(own)}, which \`hawser serve\` works for`;
}

/** What to do about it. */
export function sameDatabaseRemedy(executorUrl: string | undefined): string {
  return executorUrl === undefined
    ? "Let --database-url lead to one server only, as each connection may lead to another one now."
    : "Let --executor-url name the server and the database that --database-url names, with the other login.";
}

function shown({ name, address, startedAt }: DatabaseIdentity): string {
  const started = new Date(Number(startedAt) * 1_000).toISOString();
  return `the database "${name}" of the server ${address === null ? "behind a local socket" : `at ${address}`}, started at ${started}`;
}
