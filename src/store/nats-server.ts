/**
 * Telling a database which NATS server its SQL functions use.
 */
import { tables } from "../../generated/ts/rows/nats.js";
import { withCommandDatabase } from "./command-database.js";

/** What to tell. */
export interface NatsServerDefinition {
  readonly databaseUrl: string | undefined;
  /** As in CREATE SERVER: strings. */
  readonly options: Readonly<Record<string, string>>;
}

/**
 * Sets the options, unless a foreign server defines them.
 *
 * @returns the name of the foreign server that was left as it is; undefined if the options were set
 * @throws StoreError as `withCommandDatabase`; `store_failed` for options that are not right, and for a role that may not
 */
export function defineNatsServer({ databaseUrl, options }: NatsServerDefinition): Promise<string | undefined> {
  return withCommandDatabase(databaseUrl, async (database) => {
    // Nobody else may have followed what a foreign server says.
    await database.query("look which NATS server is defined", { text: "SELECT hawser.follow_nats_server()" });
    const [present] = await database.query<{ name: string | null }>("look which NATS server is defined", {
      text: `SELECT s.server_name AS name FROM ${tables.natsServer} AS s`,
    });
    if (typeof present?.name === "string") return present.name;
    await database.query("define the NATS server", {
      text: "SELECT hawser.set_nats_server($1)",
      values: [JSON.stringify(options)],
    });
    return undefined;
  });
}
