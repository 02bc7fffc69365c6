/**
 * The connection of whoever prepares a database, and SQL for those who would rather run it themselves.
 */
import pg from "pg";
import { connectionSettings } from "./connection-settings.js";
import { explainRefusal } from "./missing-rights.js";

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
 * @throws StoreError `store_failed` and `schema_missing`, and what `work` throws
 */
export async function withInstaller<T>(
  databaseUrl: string | undefined,
  action: string,
  work: (client: pg.Client, place: Place) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(connectionSettings(databaseUrl));
  // The query that is under way reports it.
  client.on("error", () => undefined);
  try {
    await client.connect();
    // What others have put into a schema that is on the path is not called by mistake.
    await client.query("SET search_path = pg_catalog, pg_temp");
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
