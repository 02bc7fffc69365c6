/**
 * The connection of an examination: it reads, waits for nothing long, and changes nothing.
 */
import pg from "pg";
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { connectionSettings, settingsOfLogin } from "../store/connection-settings.js";

/** Who looks, and where. */
export interface Place {
  readonly role: string;
  readonly database: string;
  /** As a message names it: host and port, or the directory of a socket. */
  readonly server: string;
}

/** A client that is not connected yet, as the login of the URL or as another one. */
export function newClient(
  databaseUrl: string | undefined,
  login?: { readonly user: string; readonly password: string },
): pg.Client {
  const client = new pg.Client({
    ...(login === undefined ? connectionSettings(databaseUrl) : settingsOfLogin(databaseUrl, login)),
    application_name: "hawser doctor",
    connectionTimeoutMillis: doctorConstants.connectMs,
    statement_timeout: doctorConstants.statementMs,
  });
  // The query that is under way reports it.
  client.on("error", () => undefined);
  return client;
}

/** Connects; the session reads alone, and nothing that others have put on its path is called by mistake. */
export async function open(client: pg.Client): Promise<void> {
  await client.connect();
  await client.query("SET search_path = pg_catalog, pg_temp");
  await client.query("SET default_transaction_read_only = on");
}

/** Ends it at once, also where Postgres does not answer. */
export function close(client: pg.Client): void {
  client.connection.stream.destroy();
}

/** Where a client is to connect, for what is said when it could not. */
export function placeOf(client: pg.Client): Place {
  const { host, port, user = "", database = "" } = client;
  return { role: user, database, server: host.startsWith("/") ? host : `${host}:${port}` };
}
