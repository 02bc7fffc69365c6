/**
 * What `hawser serve` runs: follows the definition of the NATS server in Postgres, and answers the SQL functions.
 */
import { X509Certificate } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { checkServeSettings, type ServeSettings, type ServeSettingsInput } from "../../generated/ts/settings/nats.js";
import { GatewayError } from "../errors/index.js";
import { migrate, silentLogger } from "../store/index.js";
import { type PemSource, systemClock, TlsCredentials, type TlsMaterial } from "../transport/index.js";
import { type Address, formatAddress, isLoopback, parseAddress } from "../wire/index.js";
import { AddressBook } from "./address-book.js";
import { Gateway } from "./gateway.js";
import { isBindable, type Logger } from "./protocol/index.js";
import { type GatewayAddress, ServerWatch } from "./server-watch.js";
import { strangersAmong } from "./shared-secrets.js";

/** TLS between Postgres and the gateway. */
export interface GatewayTls {
  readonly cert: PemSource;
  readonly key: PemSource;
  /** What libpq checks of the certificate. Default `require`, nothing: the password proves whose it is. */
  readonly sslmode?: "require" | "verify-ca" | "verify-full" | undefined;
  /** For `verify-ca` and `verify-full`: the file with the authority's certificate, on the machine of Postgres. */
  readonly rootCertificate?: string | undefined;
}

/** How to serve. Settings that are left out have the defaults of the spec. */
export interface ServeOptions extends ServeSettingsInput {
  /** The database, as a login of hawser_bridge or the owner of the schema. Without it the PG* variables are used. */
  readonly databaseUrl?: string | undefined;
  /** `host:port` at which Postgres reaches the gateway. Default: the address it listens at. */
  readonly advertise?: string | undefined;
  readonly tls?: GatewayTls | undefined;
  /** Says that the network between Postgres and the gateway is trusted: needed beyond loopback without TLS. */
  readonly allowPlaintext?: boolean | undefined;
  /** Below which directories the files may be that options of the NATS server name. Default `/run/secrets`. */
  readonly secretsDirectories?: readonly string[] | undefined;
  readonly logger?: Logger | undefined;
  /** Ends the start. */
  readonly signal?: AbortSignal | undefined;
}

const defaultSecretsDirectory = "/run/secrets";

/** See above. */
export class Serve implements AsyncDisposable {
  #gateway: Gateway | undefined;
  #watch: ServerWatch | undefined;
  #addresses: AddressBook | undefined;
  #endReloading: (() => void) | undefined;
  #stopping: Promise<void> | undefined;

  private constructor(private readonly logger: Logger) {}

  /**
   * Resolves when the gateway listens and Postgres knows where. The NATS server need not be defined or reachable yet.
   *
   * @throws HawserError `invalid_argument`; `plaintext_refused`; `bind_failed`; `store_failed`, `schema_missing`,
   * `schema_too_new`; the reason of the signal
   */
  static async start(options: ServeOptions = {}): Promise<Serve> {
    const settings = checked(options);
    const listen = parseAddress(settings.gatewayListen);
    const { tls, allowPlaintext = false, logger = silentLogger, signal } = options;
    const advertised = options.advertise === undefined ? undefined : parseAddress(options.advertise);
    for (const place of [listen, ...(advertised === undefined ? [] : [advertised])]) {
      if (tls === undefined && !allowPlaintext) refuseBeyondLoopback(place);
    }
    const credentials = tls === undefined ? undefined : new TlsCredentials({ cert: tls.cert, key: tls.key });
    if (credentials !== undefined) refuseUnbindable(credentials.current);
    const serve = new Serve(logger);
    try {
      await migrate({ databaseUrl: options.databaseUrl, logger });
      signal?.throwIfAborted();
      await serve.#open(options, settings, listen, credentials);
      signal?.throwIfAborted();
      serve.#endReloading = serve.#reload(credentials);
      await serve.#announce(advertised, tls);
      return serve;
    } catch (error) {
      await serve.stop();
      throw error;
    }
  }

  /** Where the gateway listens, with the real port. */
  get address(): string {
    return formatAddress(this.#gateway!.address);
  }

  /** Where the gateway listens, as a URL for libpq, without its password. */
  get gatewayUrl(): string {
    const { user, database } = this.#watch!.identity;
    return `postgres://${encodeURIComponent(user)}@${this.address}/${encodeURIComponent(database)}`;
  }

  /** Database sessions that are connected. */
  get sessionCount(): number {
    return this.#gateway!.sessionCount;
  }

  /** Ends: Postgres is told first, then calls under way are waited for. A further call waits for the first. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#endReloading?.();
    this.#addresses?.stop();
    await this.#watch?.stop();
    await this.#gateway?.stop();
  }

  async #open(
    options: ServeOptions,
    settings: ServeSettings,
    listen: Address,
    tls: TlsCredentials | undefined,
  ): Promise<void> {
    let present: CompleteNatsServerOptions | undefined;
    this.#watch = await ServerWatch.open({
      databaseUrl: options.databaseUrl,
      logger: this.logger,
      onOptions: (found) => {
        present = found;
        this.#gateway?.configure(found);
      },
    });
    const watch = this.#watch;
    this.#gateway = await Gateway.start(
      {
        listen,
        identity: watch.identity,
        tls,
        settings,
        secretsDirectories: options.secretsDirectories ?? [defaultSecretsDirectory],
        logger: this.logger,
        refresh: () => watch.refresh(),
      },
      options.signal,
    );
    // What was found before the gateway was there.
    this.#gateway.configure(present);
    if (options.secretsDirectories === undefined) await this.#warnOfStrangers(present);
  }

  async #warnOfStrangers(options: CompleteNatsServerOptions | undefined): Promise<void> {
    const others = await strangersAmong(defaultSecretsDirectory, options);
    if (others.length === 0) return;
    const message =
      `${defaultSecretsDirectory} holds more than the options of the NATS server name, and whoever may define one ` +
      "can have it read; keep the gateway's files in a directory of their own, and name it with --secrets-dir";
    this.logger.warn({ others: others.length }, message);
  }

  #reload(credentials: TlsCredentials | undefined): (() => void) | undefined {
    credentials?.subscribe({
      onReloaded: (material) => {
        if (isBindable(certificateOf(material))) this.logger.info({}, "the certificate has been renewed");
        else this.logger.error({}, `nobody can connect any more: ${unbindable}`);
      },
      onReloadFailed: (err) => this.logger.warn({ err }, "the certificate could not be renewed; the old one stays"),
    });
    return credentials?.watch(systemClock);
  }

  async #announce(advertised: Address | undefined, tls: GatewayTls | undefined): Promise<void> {
    const { host, port } = advertised ?? this.#gateway!.address;
    const address: GatewayAddress = {
      host,
      port: port === 0 ? this.#gateway!.address.port : port,
      sslmode: tls === undefined ? "disable" : (tls.sslmode ?? "require"),
      rootCertificate: tls?.rootCertificate,
    };
    this.#addresses = new AddressBook(this.#watch!, this.#gateway!.address, address, this.logger);
    await this.#addresses.open();
  }
}

const unbindable =
  "the certificate of the gateway is signed with Ed25519 or Ed448, to which libpq cannot bind a connection; use one " +
  "that is signed with ECDSA or RSA";

function certificateOf({ contextOptions }: TlsMaterial): Uint8Array {
  return new X509Certificate(contextOptions.cert as Buffer).raw;
}

function refuseUnbindable(material: TlsMaterial): void {
  if (!isBindable(certificateOf(material))) throw new GatewayError("invalid_argument", unbindable);
}

function checked(options: ServeOptions): ServeSettings {
  const result = checkServeSettings(options);
  if (result.ok) return result.settings;
  const { path, value, rule, remedy } = result.violation;
  throw new GatewayError("invalid_argument", `${path} is ${value} and ${rule}. ${remedy}`);
}

function refuseBeyondLoopback(place: Address): void {
  if (isLoopback(place.host)) return;
  throw new GatewayError(
    "plaintext_refused",
    `${formatAddress(place)} is not a loopback address, and messages between Postgres and the gateway would not be ` +
      "encrypted: set tls, use a loopback address, or set allowPlaintext where the network is trusted",
  );
}
