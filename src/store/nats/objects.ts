/**
 * What the NATS half of an installation is called in the database.
 */
import { tables } from "../../../generated/ts/rows/nats.js";

/** Where the SQL functions go by default. */
export const defaultFunctionsSchema = "public";

/** The schema that is made for dblink, and closed to everybody but the owner of the functions. */
export const dblinkSchema = "hawser_dblink";

/** The comment on {@link dblinkSchema} by which it is known again as made by `hawser init`. */
export const dblinkMark = "dblink for Hawser, made by hawser init. Nobody else may use it.";

/** What `hawser.gateway_call` uses of dblink. */
export const usedDblinkFunctions: readonly string[] = [
  "dblink_get_connections()",
  "dblink_is_busy(text)",
  "dblink_error_message(text)",
  "dblink_connect(text, text)",
  "dblink_disconnect(text)",
  "dblink(text, text)",
];

/** Functions of dblink's library that touch no connection. */
export const harmlessDblinkSymbols: readonly string[] = [
  "dblink_fdw_validator",
  "dblink_get_pkey",
  "dblink_build_sql_insert",
  "dblink_build_sql_update",
  "dblink_build_sql_delete",
  "dblink_current_query",
];

/** The foreign data wrappers, both with the one validator. */
export const wrapperNames: readonly string[] = ["litmus_pgnats_fdw", "pgnats_fdw"];

/**
 * The schema of what superusers run without having called it: the validator of the wrappers, and the function of the event
 * triggers. Nothing in it may belong to anybody else.
 */
export const foreignDataSchema = "hawser_fdw";

/** The schema of the wrappers of functions that NATS reaches, in which callers of NATS may make them. */
export const runSchema = "hawser_run";

/** The schema of the view of what is subscribed, under the name that it has in the native extension. */
export const subscriptionsSchema = "pgnats";

/** The view. */
export const subscriptionsView = `${subscriptionsSchema}.subscriptions`;

/** What checks the options of their servers. */
export const wrapperValidator = `${foreignDataSchema}.nats_fdw_validator`;

/** What the functions read as their owner. */
export const readTables: readonly string[] = [tables.natsServer, tables.gateway, tables.gatewaySecret];

/** An event trigger that follows the definition of the server. */
export interface EventTrigger {
  readonly name: string;
  readonly event: "ddl_command_end" | "sql_drop";
  readonly tags: readonly string[];
}

/** What they call. */
export const eventTriggerFunction = `${foreignDataSchema}.follow_nats_ddl()`;

/** All of them. */
export const eventTriggers: readonly EventTrigger[] = [
  {
    name: "hawser_nats_server_follow",
    event: "ddl_command_end",
    tags: ["CREATE SERVER", "ALTER SERVER", "CREATE USER MAPPING", "ALTER USER MAPPING"],
  },
  {
    name: "hawser_nats_server_drop",
    event: "sql_drop",
    tags: [
      "DROP SERVER",
      "DROP USER MAPPING",
      "DROP FOREIGN DATA WRAPPER",
      "DROP OWNED",
      "DROP EXTENSION",
      "DROP FUNCTION",
      "DROP ROUTINE",
      "DROP SCHEMA",
    ],
  },
];

/** The extensions that have these functions in a library of Postgres's own. */
export const nativeExtensions: readonly string[] = ["pgnats", "litmus_pgnats"];
