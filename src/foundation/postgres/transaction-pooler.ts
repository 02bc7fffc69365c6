/**
 * Detects a transaction pooler in front of Postgres. It may use another session for each transaction of a client, so
 * that settings, LISTEN and locks of a session are lost.
 */

import type pg from "pg";
import { HawserError } from "../errors/index.js";
import { type ClientSource, databaseConnectTimeoutMs } from "./database-address.js";
import { sqlstateOf } from "./failure.js";
import { openSession } from "./open-session.js";

/** Number of checks, because a busy pool may assign the same session again by chance. */
const tries = 5;

const pidSql = "SELECT pg_catalog.pg_backend_pid() AS pid";

/** SQLSTATE with which a statement pooler rejects a transaction. */
const protocolViolation = "08P01";

/** Explanation and remedies for errors and findings. */
export const poolerWords = {
  what: "notifications, the locks of leases and leadership, and settings of the session do not work through one",
  remedy:
    "Give the address of Postgres itself with --database-url or HAWSER_DATABASE_URL; your programs may call the SQL " +
    "functions through the pooler",
  peerRemedy:
    "Give the URL of Postgres itself as sessionUrl (in the hawser command --session-url or " +
    "HAWSER_SESSION_URL); databaseUrl or pool may go through the pooler",
} as const;

/**
 * Fails if the connection goes through a transaction pooler.
 *
 * @param session open session, with the server process that answered its first statement
 * @param remedy advice for the user
 * @throws HawserError `transaction_pooler`; for a pooler also the errors of `openSession`
 */
export async function refuseTransactionPooler(
  source: ClientSource,
  session: { readonly client: pg.Client; readonly backendPid: number },
  remedy: string = poolerWords.remedy,
): Promise<void> {
  if (!(await isTransactionPooled(source, session))) return;
  throw new HawserError(
    "transaction_pooler",
    `at ${source.described.server} there is a transaction pooler in front of Postgres, and ${poolerWords.what}. ${remedy}`,
  );
}

/**
 * Returns true if the session goes through a transaction pooler. Postgres sends the id of the serving process on
 * connect; a pooler sends another number. If that number is not `backendPid`, queries decide: a pooler exists if the
 * session moves to another process, or if its process also serves a transaction of a second session.
 */
export async function isTransactionPooled(
  source: ClientSource,
  { client, backendPid }: { readonly client: pg.Client; readonly backendPid: number },
): Promise<boolean> {
  if ((client as pg.Client & { readonly processID?: number | null }).processID === backendPid) return false;
  const second = await openSession(source);
  try {
    for (let tried = 0; tried < tries; tried += 1) {
      if ((await pidOf(client, pidSql)) !== backendPid) return true;
      if ((await pidOf(second.client, `BEGIN; ${pidSql}`)) === backendPid) return true;
      await second.client.query("ROLLBACK");
    }
    return false;
  } catch (error) {
    if (sqlstateOf(error) === protocolViolation) return true;
    throw error;
  } finally {
    second.client.connection.stream.destroy();
  }
}

async function pidOf(client: pg.Client, text: string): Promise<number> {
  // The option exists, though the types of the driver omit it. The driver returns one result per statement.
  const limited = { text, query_timeout: databaseConnectTimeoutMs };
  const results: unknown = await client.query(limited);
  const last = (Array.isArray(results) ? results.at(-1) : results) as pg.QueryResult<{ pid: number }>;
  return last.rows[0]!.pid;
}
