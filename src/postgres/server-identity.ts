/**
 * Which database server answers: the same after a restart, another one after a failover, a restore or a move.
 */
/** The cluster's identity and its timeline, which grows when a standby is promoted or a backup restored. */
const timelineSql = `SELECT s.system_identifier || ':' || left(pg_walfile_name(pg_current_wal_lsn()), 8) AS server
                     FROM pg_control_system() AS s`;
/** Services that keep these functions from users: then every restart counts as another server, which is only careful. */
const startSql = "SELECT pg_postmaster_start_time()::text AS server";

/** Undefined column, function or permission: what a service without the functions answers. */
const notOffered = new Set(["42501", "42883", "42703", "0A000", "55000"]);

/** Runs a statement and returns its rows. */
type Ask = (text: string, values: unknown[]) => Promise<object[]>;

/** Names the server behind a connection. @throws the error of Postgres when it cannot be asked */
export async function serverIdentity(query: Ask): Promise<string> {
  try {
    return await ask(query, timelineSql);
  } catch (error) {
    if (!notOffered.has((error as { code?: string }).code ?? "")) throw error;
    return await ask(query, startSql);
  }
}

async function ask(query: Ask, text: string): Promise<string> {
  const [row] = (await query(text, [])) as { server: string }[];
  return row?.server ?? "";
}
