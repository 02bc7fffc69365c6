/**
 * Which database a command works on: the same option for all of them.
 */
import type { ArgsDef } from "citty";
import { CliError, HawserError } from "../errors/index.js";

/** Spread it into a command's `args`. */
export const databaseOption = {
  "database-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The database, postgres://user@host:5432/name. Default: HAWSER_DATABASE_URL, else the PG* variables of libpq " +
      "(PGHOST, PGUSER, PGPASSWORD, …). A password belongs into one of these: others can read a command line",
  },
} as const satisfies ArgsDef;

/**
 * The connection URI that the arguments or HAWSER_DATABASE_URL name; undefined for the PG* variables.
 *
 * @throws CliError `invalid_argument` for an empty one, which a shell makes of a variable that is not set
 */
export function databaseUrlOf(args: { readonly "database-url"?: string | undefined }): string | undefined {
  const url = args["database-url"];
  if (url === "") {
    throw new CliError(
      "invalid_argument",
      "--database-url is empty; give it a URL such as postgres://user@host:5432/name, or leave it out",
    );
  }
  return url ?? (process.env["HAWSER_DATABASE_URL"] || undefined);
}

/** Beside {@link databaseOption}, for commands that run a peer: it needs a session. Spread it into their `args`. */
export const sessionOption = {
  "session-url": {
    type: "string",
    valueHint: "URL",
    description:
      "The server of the same database itself, where --database-url leads through a transaction pooler. Default: " +
      "HAWSER_SESSION_URL, unless --database-url is given; it belongs to HAWSER_DATABASE_URL",
  },
} as const satisfies ArgsDef;

/**
 * The connection URI that the arguments or HAWSER_SESSION_URL name; undefined if the session goes where the pool goes. The
 * variable is not for a database that the arguments name: that may be another one.
 *
 * @throws CliError `invalid_argument` for an empty one
 */
export function sessionUrlOf(args: {
  readonly "database-url"?: string | undefined;
  readonly "session-url"?: string | undefined;
}): string | undefined {
  const url = args["session-url"];
  if (url === "") {
    throw new CliError(
      "invalid_argument",
      "--session-url is empty; give it a URL such as postgres://user@host:5432/name, or leave it out",
    );
  }
  if (url !== undefined || args["database-url"] !== undefined) return url;
  return process.env["HAWSER_SESSION_URL"] || undefined;
}

/** Errors that a database other than the one that was meant would explain. */
const ofTheDatabase: ReadonlySet<string> = new Set(["store_failed", "startup_failed", "schema_missing"]);

/**
 * The error of a command; where it is about the database, and nobody had said which, it says where that was looked for.
 *
 * @param definition the command's arguments
 * @param rawArgs as they were given
 */
export function namingDefaults(error: unknown, definition: ArgsDef, rawArgs: readonly string[]): unknown {
  if (!HawserError.is(error) || !ofTheDatabase.has(error.code) || !("database-url" in definition)) return error;
  const given = rawArgs.some((argument) => /^--database-url(=|$)/.test(argument));
  if (given || process.env["HAWSER_DATABASE_URL"]) return error;
  const { code, message, outcome } = error;
  const why = "no --database-url and no HAWSER_DATABASE_URL were given: libpq's defaults were used";
  return new CliError(code, `${message}; ${why}`, { cause: error, ...(outcome !== undefined && { outcome }) });
}
