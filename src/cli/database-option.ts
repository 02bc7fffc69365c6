/**
 * Which database a command works on: the same option for all of them.
 */
import type { ArgsDef } from "citty";
import { CliError } from "../errors/index.js";

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
