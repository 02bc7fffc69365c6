/**
 * Converts a connection URI to the settings of node-postgres: the hosts, and TLS in particular.
 *
 * Several hosts, separated by commas, are tried in order, as in libpq. `target_session_attrs` selects the host; by
 * default, the first that accepts writes.
 *
 * The TLS parameters are parsed here and not by the driver, whose meaning of `sslmode` changes with its next major
 * version, and which ignores PGSSLROOTCERT. Their meaning here: `disable` uses plaintext; `no-verify` encrypts and
 * trusts any certificate; every other mode encrypts and verifies certificate and host name. `verify-ca` with an
 * `sslrootcert` verifies only the certificate. No mode falls back to plaintext.
 */
import { Socket } from "node:net";
import pg from "pg";
import { HawserError } from "../errors/index.js";
import { addressAttempts, readSmallFileSync, tlsFileMaxBytes } from "../runtime/index.js";
import {
  attributesOf,
  connectionUriOf,
  type SessionAttributes,
  splitOnce,
  type TlsParameter,
  tlsParameters,
  UserPool,
  urlsOf,
  validateTlsMode,
} from "../sql-clients/index.js";
import { ownTypes } from "./own-types.js";

/** Idle time before keepalive probes of the lease session and between them, on both sides. */
export const sessionKeepaliveMs = 2_000;
/** Maximum time until a connection to Postgres is established or becomes free. */
export const databaseConnectTimeoutMs = 10_000;

/** Address of a database, and the login for it. */
export class DatabaseAddress {
  /** Settings of node-postgres per host, in the order in which hosts are tried. At least one. */
  readonly hosts: readonly pg.ClientConfig[];
  readonly sessionAttributes: SessionAttributes;
  #next = 0;

  constructor(hosts: readonly pg.ClientConfig[], attributes: SessionAttributes) {
    this.hosts = hosts;
    this.sessionAttributes = attributes;
  }

  /**
   * Parses a connection URI, or a string of keywords such as `host=db.internal dbname=app`.
   *
   * @param databaseUrl such as `postgres://user:password@host:5432/database?sslmode=verify-full` or
   * `postgres://a:5432,b:5432/database?target_session_attrs=primary`; the PG* variables provide missing parts
   * @throws HawserError `invalid_argument` if the URI or a certificate file cannot be read; the message never
   * contains the URI, which may contain a password
   */
  static of(databaseUrl: string | undefined, env = process.env): DatabaseAddress {
    const [address, query] = splitOnce(connectionUriOf(databaseUrl ?? ""), "?");
    const parameters = new URLSearchParams(query);
    const ssl = tlsOf(parameters, env);
    const attributes = attributesOf(parameters, env);
    const urls = urlsOf(databaseUrl === undefined ? undefined : address, parameters, env);
    const common: pg.ClientConfig = {
      application_name: "hawser",
      keepAlive: true,
      keepAliveInitialDelayMillis: sessionKeepaliveMs,
      ...connectLimit(databaseConnectTimeoutMs),
      client_encoding: "UTF8",
      types: ownTypes,
      ...ssl,
    };
    const hosts = urls.map((connectionString) => ({
      ...common,
      ...(connectionString === undefined ? {} : { connectionString }),
    }));
    return new DatabaseAddress(hosts, attributes ?? (hosts.length === 1 ? "any" : "read-write"));
  }

  /** Returns the same address with another login. */
  withLogin(login: { readonly user: string; readonly password: string }): DatabaseAddress {
    const hosts = this.hosts.map(({ connectionString, ...settings }) => {
      const { host, port, database } = new pg.Client({ connectionString });
      return { ...settings, host, port, ...(database === undefined ? {} : { database }), ...login };
    });
    return new DatabaseAddress(hosts, this.sessionAttributes);
  }

  /** Index in {@link hosts} of the host to try next: the last one that worked, or the one after a failed host. */
  get next(): number {
    return this.#next;
  }

  /** Records that a host failed, so that the next host is tried, unless another attempt has advanced already. */
  failed(host: number): void {
    if (this.#next === host) this.#next = (host + 1) % this.hosts.length;
  }

  /** Role, database and servers, for log and error messages. */
  get described(): { readonly role: string; readonly database: string; readonly server: string } {
    const clients = this.hosts.map((host) => new pg.Client(host));
    const { user = "", database = "" } = clients[0]!;
    return { role: user, database, server: clients.map(hostOf).join(", ") };
  }
}

/** Source of the clients of a database. */
export type ClientSource = DatabaseAddress | UserPool;

/** Returns the source that options name. @throws HawserError `invalid_argument` */
export function sourceOf(from: {
  readonly databaseUrl?: string | undefined;
  readonly pool?: pg.Pool | undefined;
}): ClientSource {
  return from.pool === undefined ? DatabaseAddress.of(from.databaseUrl) : new UserPool(from.pool);
}

/** Settings of node-postgres for a time limit to connect to one host, which each family of its addresses has a part of. */
export function connectLimit(limitMs: number): Pick<pg.ClientConfig, "connectionTimeoutMillis" | "stream"> {
  return { connectionTimeoutMillis: limitMs, stream: () => new HostSocket(limitMs) };
}

/** Socket of node-postgres, which connects it with the port and the host alone, or with the path of a Unix socket. */
class HostSocket extends Socket {
  readonly #limitMs: number;

  constructor(limitMs: number) {
    super();
    this.#limitMs = limitMs;
  }

  override connect(...target: [to: never]): this {
    const [port, host] = target as unknown as [port: unknown, host: unknown];
    if (typeof port !== "number" || typeof host !== "string") return super.connect(...target);
    return super.connect({ port, host, ...addressAttempts(this.#limitMs) });
  }
}

/** Host and port of a client, or the directory of its socket, for log and error messages. */
export function hostOf({ host, port }: pg.Client): string {
  return host.startsWith("/") ? host : `${host}:${port}`;
}

/** Removes the TLS parameters from the others and converts them. */
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
  validateTlsMode(mode);
  if (mode === "disable") return false;
  const root = parameters.get("sslrootcert");
  const options: Exclude<pg.ClientConfig["ssl"], boolean | undefined> = {};
  // In libpq, "system" means the trusted root certificates of the system.
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
    return readSmallFileSync(path, tlsFileMaxBytes).toString("utf8");
  } catch (cause) {
    throw new HawserError("invalid_argument", `${parameter} ${path} cannot be read: ${(cause as Error).message}`, {
      cause,
    });
  }
}
