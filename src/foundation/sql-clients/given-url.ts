/**
 * Connection URIs from options or environment variables. Both are validated where they are read, so that an error names
 * the invalid one.
 */
import { HawserError } from "../errors/index.js";
import { checkConnectionUri } from "./connection-uri.js";

/** Environment variables that commands and the public classes read. An empty variable counts as unset. */
type UrlVariable = "HAWSER_DATABASE_URL" | "HAWSER_SESSION_URL" | "HAWSER_EXECUTOR_URL" | "HAWSER_PAGE_DATABASE_URL";

/**
 * Returns the URI of an environment variable; undefined if it is unset or empty.
 *
 * @throws HawserError `invalid_argument` that names the variable; never with the URI, which may contain a password
 */
export function urlFromEnvironment(variable: UrlVariable, env = process.env): string | undefined {
  return checkedUrl(variable, env[variable] || undefined);
}

/**
 * Completes the options from `HAWSER_DATABASE_URL` and `HAWSER_SESSION_URL`. The second variable is ignored if
 * `databaseUrl` is given, because it belongs to the first; both are ignored if there is a pool. For values that remain
 * undefined, the `PG*` variables apply.
 *
 * @throws HawserError `invalid_argument` that names the option or the variable; also for a pool with `databaseUrl`
 */
export function urlsOrEnvironment(
  given: {
    readonly databaseUrl?: string | undefined;
    readonly pool?: unknown;
    readonly sessionUrl?: string | undefined;
  },
  env = process.env,
): { readonly databaseUrl: string | undefined; readonly sessionUrl: string | undefined } {
  const databaseUrl = checkedUrl("databaseUrl", given.databaseUrl);
  const sessionUrl = checkedUrl("sessionUrl", given.sessionUrl);
  if (given.pool !== undefined && databaseUrl !== undefined) {
    throw new HawserError(
      "invalid_argument",
      "databaseUrl together with pool: the pool has its own address; leave databaseUrl out",
    );
  }
  if (databaseUrl !== undefined || given.pool !== undefined) return { databaseUrl, sessionUrl };
  return {
    databaseUrl: urlFromEnvironment("HAWSER_DATABASE_URL", env),
    sessionUrl: sessionUrl ?? urlFromEnvironment("HAWSER_SESSION_URL", env),
  };
}

/**
 * Validates a URI. Files named in it are read later.
 *
 * @param source option or variable that contains the URI
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
