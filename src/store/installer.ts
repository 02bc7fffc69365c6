/**
 * The connection of whoever prepares a database, and SQL for those who would rather run it themselves.
 */
import type pg from "pg";
import { DatabaseAddress, openSession, refuseTransactionPooler } from "../postgres/index.js";
import { explainRefusal } from "./missing-rights.js";
import { storeFailure } from "./store-failure.js";

/** Where something is installed, and as whom. */
export interface Place {
  readonly database: string;
  /** The role that did it. */
  readonly role: string;
}

/**
 * Connects, works, and ends the connection.
 *
 * @param action what could not be done if it fails, to follow "could not"
 * @throws StoreError `store_failed`, `transaction_pooler` and `schema_missing`, and what `work` throws
 */
export async function withInstaller<T>(
  databaseUrl: string | undefined,
  action: string,
  work: (client: pg.Client, place: Place) => Promise<T>,
): Promise<T> {
  const address = DatabaseAddress.of(databaseUrl);
  const session = await openSession(address).catch((cause) => {
    throw storeFailure(action, cause);
  });
  const { client } = session;
  try {
    // Who runs it may be a superuser, and the path of the session keeps others' objects from being called.
    await refuseTransactionPooler(address, session);
    const { rows } = await client.query<Place>("SELECT current_database() AS database, current_user AS role");
    return await work(client, rows[0]!);
  } catch (cause) {
    throw await explainRefusal(client, action, cause);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A transaction as psql runs it. */
export function transactionText(what: string, sql: string): string {
  return `-- ${what}\nBEGIN;\n${sql.trim()}\nCOMMIT;\n`;
}
