/**
 * Whether a transaction pooler stands before Postgres. It may give each transaction of a client another session, so that
 * settings, LISTEN and locks of a session do not stay with the client.
 */
import type pg from "pg";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import type { DatabaseAddress } from "./database-address.js";
import { sqlstateOf } from "./failure.js";
import { openSession } from "./open-session.js";

/** How often it is tried: a pool that others use may give a client the same session again by chance. */
const tries = 5;

const pidSql = "SELECT pg_catalog.pg_backend_pid() AS pid";

/** The SQLSTATE by which a pooler of single statements refuses a transaction. */
const protocolViolation = "08P01";

/** What does not work behind a pooler, and what to do: for errors and findings. */
export const poolerWords = {
  what: "notifications, the locks of leases and leadership, and settings of the session do not work through one",
  remedy:
    "Name the server of Postgres itself with --database-url or HAWSER_DATABASE_URL; your programs may call the SQL " +
    "functions through the pooler all the same",
  peerRemedy:
    "Give the URL of the server of Postgres itself as sessionUrl (in the hawser command --session-url or " +
    "HAWSER_SESSION_URL); databaseUrl may lead through the pooler all the same",
} as const;

/**
 * Refuses a transaction pooler.
 *
 * @param session an open session, with the process of Postgres that answered its first statement
 * @param remedy what the user can do here
 * @throws HawserError `transaction_pooler`; what `openSession` throws, for a pooler only
 */
export async function refuseTransactionPooler(
  address: DatabaseAddress,
  session: { readonly client: pg.Client; readonly backendPid: number },
  remedy: string = poolerWords.remedy,
): Promise<void> {
  if (!(await isTransactionPooled(address, session))) return;
  throw new HawserError(
    "transaction_pooler",
    `at ${address.described.server} a transaction pooler stands before Postgres, and ${poolerWords.what}. ${remedy}`,
  );
}

/**
 * When a client connects, Postgres names the process that serves it; a pooler names something else. Where that is not the
 * process that answers, a second session begins transactions: if it gets the first one's process for one of them, the two
 * share it.
 */
export async function isTransactionPooled(
  address: DatabaseAddress,
  { client, backendPid }: { readonly client: pg.Client; readonly backendPid: number },
): Promise<boolean> {
  if ((client as pg.Client & { readonly processID?: number | null }).processID === backendPid) return false;
  const second = await openSession(address, { queryTimeoutMs: storeConstants.databaseConnectTimeoutMs });
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

async function pidOf(client: pg.Client, sql: string): Promise<number> {
  // Several statements have several results.
  const results: unknown = await client.query(sql);
  const last = (Array.isArray(results) ? results.at(-1) : results) as pg.QueryResult<{ pid: number }>;
  return last.rows[0]!.pid;
}
