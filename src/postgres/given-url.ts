/**
 * Connection URIs as users give them: an option, or else an environment variable. Both are checked where they are read, so
 * that an error names the one that is wrong.
 */
import { HawserError } from "../errors/index.js";
import { checkConnectionUri } from "./database-address.js";

/** Environment variables that commands and the public classes read. An empty one counts as not set. */
type UrlVariable = "HAWSER_DATABASE_URL" | "HAWSER_SESSION_URL" | "HAWSER_EXECUTOR_URL";

/**
 * The URI of the environment; undefined if the variable is not set or empty.
 *
 * @throws HawserError `invalid_argument` that names the variable; never with the URI, which may hold a password
 */
export function urlFromEnvironment(variable: UrlVariable, env = process.env): string | undefined {
  return checkedUrl(variable, env[variable] || undefined);
}

/**
 * The options with what they leave out taken from `HAWSER_DATABASE_URL` and `HAWSER_SESSION_URL`. The second variable
 * belongs to the first: where `databaseUrl` is given it is not read. What stays undefined is for the `PG*` variables.
 *
 * @throws HawserError `invalid_argument` that names the option or the variable
 */
export function urlsOrEnvironment(
  given: { readonly databaseUrl?: string | undefined; readonly sessionUrl?: string | undefined },
  env = process.env,
): { readonly databaseUrl: string | undefined; readonly sessionUrl: string | undefined } {
  const databaseUrl = checkedUrl("databaseUrl", given.databaseUrl);
  const sessionUrl = checkedUrl("sessionUrl", given.sessionUrl);
  if (databaseUrl !== undefined) return { databaseUrl, sessionUrl };
  return {
    databaseUrl: urlFromEnvironment("HAWSER_DATABASE_URL", env),
    sessionUrl: sessionUrl ?? urlFromEnvironment("HAWSER_SESSION_URL", env),
  };
}

/**
 * The URI, read for its mistakes; files that it names are read later.
 *
 * @param source the option or variable that it comes from
 * @throws HawserError `invalid_argument` that names the source
 */
export function checkedUrl(source: string, url: string | undefined): string | undefined {
  if (url === undefined) return undefined;
  if (typeof url !== "string") {
    throw new HawserError(
      "invalid_argument",
      `${source} is a value of type ${typeof url} and must be a string; give a URL such as postgres://user@host:5432/name`,
    );
  }
  try {
    checkConnectionUri(url);
  } catch (cause) {
    if (!(cause instanceof HawserError)) throw cause;
    const message = cause.message.replace(/^databaseUrl(?= )/, source);
    const named = message.startsWith(source) ? message : `${source}: ${message}`;
    throw new HawserError("invalid_argument", named, { cause });
  }
  return url;
}
