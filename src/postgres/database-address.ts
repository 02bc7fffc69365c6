/**
 * From a connection URI to what node-postgres is told: the hosts, and TLS in particular.
 *
 * Several hosts, separated by commas, are tried in their order, as libpq does. `target_session_attrs` says which of them
 * is taken; without it, the first that takes writes.
 *
 * The TLS parameters are read here and not by the driver: its meaning of `sslmode` changes with its next major version,
 * and it does not know PGSSLROOTCERT. What they mean here: `disable` sends everything in the clear; `no-verify`
 * encrypts and trusts any certificate; every other mode encrypts and verifies certificate and host name. `verify-ca`
 * with an `sslrootcert` verifies the certificate alone. There is no mode that falls back to plain text.
 */
import pg from "pg";
import { protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { readSmallFileSync } from "../files/index.js";

const tlsParameters = ["sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"] as const;
type TlsParameter = (typeof tlsParameters)[number];

const tlsModes = ["disable", "no-verify", "allow", "prefer", "require", "verify-ca", "verify-full"];

/** What a server has to be for a session to stay with it; libpq's words. */
const sessionAttributes = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] as const;
export type SessionAttributes = (typeof sessionAttributes)[number];

const { builtins } = pg.types;

/** Row values as the generated row types have them: bigint as bigint, the rest as node-postgres has them. */
const typeParsers: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") =>
    oid === builtins.INT8 ? BigInt : pg.types.getTypeParser(oid, format as "text")) as typeof pg.types.getTypeParser,
};

/** Where a database is, and the login by which it is reached. */
export class DatabaseAddress {
  /** For each host what node-postgres is told; at least one, in the order in which they are tried. */
  readonly hosts: readonly pg.ClientConfig[];
  readonly sessionAttributes: SessionAttributes;
  #next = 0;

  constructor(hosts: readonly pg.ClientConfig[], attributes: SessionAttributes) {
    this.hosts = hosts;
    this.sessionAttributes = attributes;
  }

  /**
   * Reads a connection URI.
   *
   * @param databaseUrl such as `postgres://user:password@host:5432/database?sslmode=verify-full` or
   * `postgres://a:5432,b:5432/database?target_session_attrs=primary`; without it, and for what it leaves out, the PG*
   * variables are used
   * @throws HawserError `invalid_argument` if the URI cannot be read, or a certificate file; the message never contains the
   * URI, which may hold a password
   */
  static of(databaseUrl: string | undefined, env = process.env): DatabaseAddress {
    const [address, query] = splitOnce(databaseUrl ?? "", "?");
    const parameters = new URLSearchParams(query);
    const ssl = tlsOf(parameters, env);
    const attributes = attributesOf(parameters, env);
    const urls = urlsOf(databaseUrl === undefined ? undefined : address, parameters, env);
    const common: pg.ClientConfig = {
      application_name: "hawser",
      keepAlive: true,
      keepAliveInitialDelayMillis: storeConstants.sessionKeepaliveMs,
      connectionTimeoutMillis: storeConstants.databaseConnectTimeoutMs,
      types: typeParsers,
      ...ssl,
    };
    const hosts = urls.map((connectionString) => ({
      ...common,
      ...(connectionString === undefined ? {} : { connectionString }),
    }));
    return new DatabaseAddress(hosts, attributes ?? (hosts.length === 1 ? "any" : "read-write"));
  }

  /** The same place with another login. */
  withLogin(login: { readonly user: string; readonly password: string }): DatabaseAddress {
    const hosts = this.hosts.map(({ connectionString, ...settings }) => {
      const { host, port, database } = new pg.Client({ connectionString });
      return { ...settings, host, port, ...(database === undefined ? {} : { database }), ...login };
    });
    return new DatabaseAddress(hosts, this.sessionAttributes);
  }

  /** The index in {@link hosts} of the host to try next: the one that worked last, or the one after the one that failed. */
  get next(): number {
    return this.#next;
  }

  /** A host was of no use: the one after it comes next, unless another attempt has moved on already. */
  failed(host: number): void {
    if (this.#next === host) this.#next = (host + 1) % this.hosts.length;
  }

  /** Role, database and servers, for messages. */
  get described(): { readonly role: string; readonly database: string; readonly server: string } {
    const clients = this.hosts.map((host) => new pg.Client(host));
    const { user = "", database = "" } = clients[0]!;
    return { role: user, database, server: clients.map(hostOf).join(", ") };
  }
}

/**
 * Reads a connection URI only for its mistakes. Files that it names are not read.
 *
 * @throws HawserError `invalid_argument` as {@link DatabaseAddress.of}
 */
export function checkConnectionUri(databaseUrl: string, env = process.env): void {
  const [address, query] = splitOnce(databaseUrl, "?");
  const parameters = new URLSearchParams(query);
  checkedTlsMode(parameters.get("sslmode") ?? undefined);
  for (const name of tlsParameters) parameters.delete(name);
  attributesOf(parameters, env);
  urlsOf(address, parameters, env);
}

/** Host and port of a client, or the directory of its socket, for messages. */
export function hostOf({ host, port }: pg.Client): string {
  return host.startsWith("/") ? host : `${host}:${port}`;
}

/** A URL for each host; undefined where the environment says everything. */
function urlsOf(
  address: string | undefined,
  parameters: URLSearchParams,
  env: NodeJS.ProcessEnv,
): readonly (string | undefined)[] {
  const [, login = "", authority = "", path = ""] = /^[a-z]+:\/\/([^/?#]*@)?([^/?#]*)(.*)$/is.exec(address ?? "") ?? [];
  const named = parameters.get("host") ?? (authority === "" ? env["PGHOST"] : authority);
  if (named?.includes(",") !== true) {
    return [address === undefined ? undefined : checkedUrl(address, parameters)];
  }
  const inAuthority = parameters.get("host") === null && authority !== "";
  const ports = inAuthority ? [] : (parameters.get("port") ?? env["PGPORT"] ?? "").split(",");
  const hosts = named.split(",");
  if (ports.length > 1 && ports.length !== hosts.length) {
    throw new HawserError(
      "invalid_argument",
      `databaseUrl names ${hosts.length} hosts and ${ports.length} ports; name one port for all, or one for each host`,
    );
  }
  return hosts.map((one, place) => {
    const own = new URLSearchParams(parameters);
    const [, host = "", port] = (inAuthority ? /^(\[.*\]|[^:]*)(?::(.*))?$/.exec(one) : [one, one]) ?? [];
    const chosenPort = port ?? ports[place] ?? ports[0] ?? "";
    if (host === "") {
      throw new HawserError(
        "invalid_argument",
        `databaseUrl has no host in place ${place + 1} of its list; write them as host:port,host:port`,
      );
    }
    if (chosenPort !== "" && !(/^\d+$/.test(chosenPort) && Number(chosenPort) > 0 && Number(chosenPort) < 65_536)) {
      throw new HawserError(
        "invalid_argument",
        `databaseUrl has the port "${chosenPort}" of the host in place ${place + 1}; a port is a number from 1 to 65535`,
      );
    }
    own.set("host", host.replace(/^\[(.*)\]$/, "$1"));
    if (chosenPort !== "") own.set("port", chosenPort);
    return checkedUrl(address === undefined ? "postgres:///" : `postgres://${login}${path || "/"}`, own);
  });
}

function attributesOf(parameters: URLSearchParams, env: NodeJS.ProcessEnv): SessionAttributes | undefined {
  const value = parameters.get("target_session_attrs") ?? env["PGTARGETSESSIONATTRS"];
  parameters.delete("target_session_attrs");
  if (!value) return undefined;
  const known = sessionAttributes.find((one) => one === value);
  if (known !== undefined) return known;
  throw new HawserError(
    "invalid_argument",
    `target_session_attrs "${value}" is unknown; use one of ${sessionAttributes.join(", ")}`,
  );
}

function checkedUrl(address: string, parameters: URLSearchParams): string {
  if (!/^(postgres|postgresql|socket):/.test(address)) {
    throw new HawserError(
      "invalid_argument",
      "databaseUrl is not a connection URI; it must begin with postgres:// or postgresql://",
    );
  }
  const url = parameters.size === 0 ? address : `${address}?${parameters}`;
  try {
    // The driver reads it again when it connects; read once here, so that a mistake is reported where it was made.
    new pg.Client({ connectionString: url });
  } catch {
    throw new HawserError(
      "invalid_argument",
      wrongPort(address) ??
        "databaseUrl cannot be read; check the port, and percent-encode special characters in user name and password",
    );
  }
  return url;
}

/**
 * What is wrong with the port of an address that cannot be read; undefined if it is something else. It is shown only behind
 * a user name, and without a further `@`: otherwise it may be a part of a password.
 */
function wrongPort(address: string): string | undefined {
  const [, port, rest = ""] = /^[a-z]+:\/\/[^/?#@]*@(?:\[[^\]]*\]|[^:/?#]*):([^/?#]*)(.*)$/is.exec(address) ?? [];
  if (port === undefined || rest.includes("@")) return undefined;
  if (/^\d+$/.test(port) && Number(port) < 65_536) return undefined;
  return `databaseUrl has the port "${port}"; a port is a number from 1 to 65535`;
}

/** Takes the TLS parameters out of the others. */
function tlsOf(parameters: URLSearchParams, env: NodeJS.ProcessEnv): Pick<pg.ClientConfig, "ssl" | "sslnegotiation"> {
  const tls = new Map<TlsParameter, string>();
  const asked = tlsParameters.some((name) => parameters.has(name)) || Boolean(env["PGSSLMODE"]);
  for (const name of tlsParameters) {
    const value = parameters.get(name) ?? env[`PG${name.toUpperCase()}`];
    if (value) tls.set(name, value);
    parameters.delete(name);
  }
  return {
    ...(asked ? { ssl: tlsOptions(tls) } : {}),
    ...(tls.get("sslnegotiation") === "direct" ? { sslnegotiation: "direct" } : {}),
  };
}

function tlsOptions(parameters: ReadonlyMap<TlsParameter, string>): NonNullable<pg.ClientConfig["ssl"]> {
  const mode = parameters.get("sslmode");
  checkedTlsMode(mode);
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

function checkedTlsMode(mode: string | undefined): void {
  if (!mode || tlsModes.includes(mode)) return;
  throw new HawserError("invalid_argument", `sslmode "${mode}" is unknown; use one of ${tlsModes.join(", ")}`);
}

function certificateFile(parameter: string, path: string): string {
  try {
    return readSmallFileSync(path, protocolConstants.tlsFileMaxBytes).toString("utf8");
  } catch (cause) {
    throw new HawserError("invalid_argument", `${parameter} ${path} cannot be read: ${(cause as Error).message}`, {
      cause,
    });
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
