/** Identity of the database server: unchanged by a restart, different after a failover, a restore or a move. */
/** Identifier and timeline of the cluster. The timeline changes when a standby is promoted or a backup is restored. */
const timelineSql = `SELECT s.system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS server
                     FROM pg_control_system() AS s`;
/** Fallback for services that restrict these functions: every restart counts as another server, which is safe. */
const startSql = "SELECT extract(epoch FROM pg_postmaster_start_time())::text AS server";

/** SQLSTATEs of a service without the functions: undefined column or function, missing permission, and the like. */
const notAvailable = new Set(["42501", "42883", "42703", "0A000", "55000"]);

/** Runs a statement and returns its rows. */
type RunQuery = (text: string, values: unknown[]) => Promise<object[]>;

/** Returns the identity of the server behind a connection. @throws the error of Postgres if it cannot be read */
export async function serverIdentity(query: RunQuery): Promise<string> {
  try {
    return await readIdentity(query, timelineSql);
  } catch (error) {
    if (!notAvailable.has((error as { code?: string }).code ?? "")) throw error;
    return await readIdentity(query, startSql);
  }
}

async function readIdentity(query: RunQuery, text: string): Promise<string> {
  const [row] = (await query(text, [])) as { server: string }[];
  return row?.server ?? "";
}
