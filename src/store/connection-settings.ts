/**
 * From a connection URI to what node-postgres is told, TLS in particular.
 *
 * The TLS parameters are read here and not by the driver: its meaning of `sslmode` changes with its next major version,
 * and it does not know PGSSLROOTCERT. What they mean here: `disable` sends everything in the clear; `no-verify`
 * encrypts and trusts any certificate; every other mode encrypts and verifies certificate and host name. `verify-ca`
 * with an `sslrootcert` verifies the certificate alone. There is no mode that falls back to plain text.
 */
import pg from "pg";
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import { StoreError } from "../errors/index.js";
import { readSmallFileSync } from "../files/index.js";

const tlsParameters = ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"] as const;
type TlsParameter = (typeof tlsParameters)[number];

const tlsModes = ["disable", "no-verify", "allow", "prefer", "require", "verify-ca", "verify-full"];

const { builtins } = pg.types;

/** Row values as the generated row types have them: bigint as bigint, the rest as node-postgres has them. */
const typeParsers: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") =>
    oid === builtins.INT8 ? BigInt : pg.types.getTypeParser(oid, format as "text")) as typeof pg.types.getTypeParser,
};

/**
 * The settings of one connection.
 *
 * @param databaseUrl a connection URI, such as `postgres://user:password@host:5432/database?sslmode=verify-full`;
 * without it, and for what it leaves out, the PG* variables are used
 * @throws StoreError `invalid_argument` if the URI cannot be read, or a certificate file; the message never contains the
 * URI, which may hold a password
 */
export function connectionSettings(databaseUrl: string | undefined, env = process.env): pg.ClientConfig {
  const [address, query] = splitOnce(databaseUrl ?? "", "?");
  const parameters = new URLSearchParams(query);
  const tls = new Map<TlsParameter, string>();
  const asked = tlsParameters.some((name) => parameters.has(name)) || Boolean(env["PGSSLMODE"]);
  for (const name of tlsParameters) {
    const value = parameters.get(name) ?? env[`PG${name.toUpperCase()}`];
    if (value) tls.set(name, value);
    parameters.delete(name);
  }
  const ssl = asked ? tlsOptions(tls) : undefined;
  return {
    application_name: "hawser",
    keepAlive: true,
    keepAliveInitialDelayMillis: storeConstants.sessionKeepaliveMs,
    connectionTimeoutMillis: storeConstants.databaseConnectTimeoutMs,
    types: typeParsers,
    ...(databaseUrl === undefined ? {} : { connectionString: checkedUrl(address, parameters) }),
    ...(ssl === undefined ? {} : { ssl }),
    ...(tls.get("sslnegotiation") === "direct" ? { sslnegotiation: "direct" } : {}),
  };
}

/**
 * The settings of a connection to the same place with another login: of what the URI and the environment say, all but who.
 *
 * @throws StoreError as {@link connectionSettings}
 */
export function settingsOfLogin(
  databaseUrl: string | undefined,
  login: { readonly user: string; readonly password: string },
): pg.ClientConfig {
  const { connectionString, ...settings } = connectionSettings(databaseUrl);
  const { host, port, database } = new pg.Client({ connectionString });
  return { ...settings, host, port, ...(database === undefined ? {} : { database }), ...login };
}

function checkedUrl(address: string, parameters: URLSearchParams): string {
  if (!/^(postgres|postgresql|socket):/.test(address)) {
    throw new StoreError(
      "invalid_argument",
      "databaseUrl is not a connection URI; it must begin with postgres:// or postgresql://",
    );
  }
  const url = parameters.size === 0 ? address : `${address}?${parameters}`;
  try {
    // The driver reads it again when it connects; read once here, so that a mistake is reported where it was made.
    new pg.Client({ connectionString: url });
  } catch {
    throw new StoreError(
      "invalid_argument",
      "databaseUrl cannot be read; percent-encode special characters in user name and password",
    );
  }
  return url;
}

function tlsOptions(parameters: ReadonlyMap<TlsParameter, string>): NonNullable<pg.ClientConfig["ssl"]> {
  const mode = parameters.get("sslmode");
  if (mode !== undefined && !tlsModes.includes(mode)) {
    throw new StoreError("invalid_argument", `sslmode "${mode}" is unknown; use one of ${tlsModes.join(", ")}`);
  }
  if (mode === "disable") return false;
  const root = parameters.get("sslrootcert");
  const options: Exclude<pg.ClientConfig["ssl"], boolean | undefined> = {};
  // "system" is libpq's word for the roots that are trusted anyway.
  if (root !== undefined && root !== "system") options.ca = certificateFile("sslrootcert", root);
  const certificate = parameters.get("sslcert");
  if (certificate !== undefined) options.cert = certificateFile("sslcert", certificate);
  const key = parameters.get("sslkey");
  if (key !== undefined) options.key = certificateFile("sslkey", key);
  if (mode === "no-verify") options.rejectUnauthorized = false;
  if (mode === "verify-ca" && options.ca !== undefined) options.checkServerIdentity = () => undefined;
  return options;
}

function certificateFile(parameter: string, path: string): string {
  try {
    return readSmallFileSync(path, protocolConstants.tlsFileMaxBytes).toString("utf8");
  } catch (cause) {
    throw new StoreError("invalid_argument", `${parameter} ${path} cannot be read: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
