/**
 * Server that `hawser serve` runs: follows the definition of the NATS server in Postgres, and answers the SQL
 * functions.
 */
import { X509Certificate } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants, type ServeSettings, serveSettingsDefaults } from "../../generated/ts/settings/nats.js";
import { Bridge, type BridgeOptions } from "../bridge/index.js";
import { HawserError } from "../errors/index.js";
import { version } from "../files/index.js";
import { AddressBook, Gateway, type GatewayAddress, isBindable, type Placement, standings } from "../gateway/index.js";
import { ServerChoice } from "../nats/index.js";
import { DueRunner } from "../outbox/index.js";
import { DatabaseAddress, mayServeLater, postgresBackoff } from "../postgres/index.js";
import {
  backoffMs,
  delay,
  type Logger,
  metricExporter,
  silentLogger,
  stopReserveMs,
  systemClock,
} from "../runtime/index.js";
import { explainServeRefusal, migrate } from "../store/index.js";
import { TlsCredentials, type TlsMaterial } from "../tls/index.js";
import { type Address, formatAddress } from "../wire/index.js";
import { type MonitoredParts, Monitoring } from "./monitoring.js";
import { NatsPlacement } from "./nats-placement.js";
import {
  type CheckedServeOptions,
  checkServeOptions,
  type GatewayTls,
  type ServeOptions,
  strangersAmong,
} from "./serve-options.js";
import { ServerWatch } from "./server-watch.js";
import { StoredCounts } from "./stored-counts.js";

const { secretsDirectory: defaultSecretsDirectory } = gatewayConstants;
/** Interval at which `hawser serve` logs that a step of its start waits for Postgres. */
const postgresWaitLogMs = 30_000;

/**
 * Starts the server of `hawser serve`, which answers the SQL functions and runs the subscribed functions.
 *
 * Resolves when the gateway listens and Postgres has its address. A Postgres that cannot be reached, or cannot
 * serve yet, is waited for until `signal` is aborted; the NATS server need not be defined or reachable yet.
 *
 * @throws HawserError (as a rejection) `invalid_argument`; `plaintext_refused`; `bind_failed`; `store_failed`,
 * `transaction_pooler`, `schema_missing`, `schema_too_new`; the reason of `signal`
 */
export async function serve(options: ServeOptions = {}): Promise<HawserServer> {
  return await Server.start(options);
}

/** Running server of `hawser serve`. `await using` stops it. */
export interface HawserServer extends AsyncDisposable {
  /** Address at which the gateway listens, with the real port. */
  readonly address: string;
  /** Address at which Postgres reaches the gateway, as a URL for libpq without the password. */
  readonly gatewayUrl: string;
  /** Address of metrics and health, with the real port; undefined without the option `monitor`. */
  readonly monitorAddress: string | undefined;
  /** Number of connected database sessions. */
  readonly sessionCount: number;
  /**
   * Refuses new sessions, unregisters the gateway in Postgres, and waits for pending calls. A further call waits for
   * the first.
   */
  stop(): Promise<void>;
}

/** Parts of a server, in the order in which they start and stop. */
class Server implements HawserServer {
  readonly #parts: MonitoredParts = {};
  #monitoring: Monitoring | undefined;
  #due: DueRunner | undefined;
  #stopDue: (() => Promise<void>) | undefined;
  /** Server choice of all connections to NATS. */
  readonly #choice = new ServerChoice();
  #own: GatewayAddress | undefined;
  #endReloading: (() => void) | undefined;
  #stopping: Promise<void> | undefined;
  #settings: ServeSettings = serveSettingsDefaults;

  readonly #logger: Logger;

  private constructor(logger: Logger) {
    this.#logger = logger;
  }

  static async start(options: ServeOptions): Promise<Server> {
    const checked = checkServeOptions(options);
    const { tls, logger = silentLogger, signal } = options;
    const credentials = tls === undefined ? undefined : new TlsCredentials({ cert: tls.cert, key: tls.key });
    if (credentials !== undefined) refuseUnbindable(credentials.current);
    const server = new Server(logger);
    // An unreachable Postgres would delay the abort.
    const end = (): void => void server.#parts.watch?.stop();
    signal?.addEventListener("abort", end);
    try {
      await server.#open(options, checked, credentials);
      signal?.throwIfAborted();
      server.#endReloading = server.#reload(credentials);
      await server.#announce(checked.advertised, tls, signal);
      signal?.throwIfAborted();
      return server;
    } catch (error) {
      await server.stop();
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener("abort", end);
    }
  }

  get address(): string {
    return formatAddress(this.#parts.gateway!.address);
  }

  get gatewayUrl(): string {
    const { user, database } = this.#parts.watch!.identity;
    return `postgres://${encodeURIComponent(user)}@${formatAddress(this.#own!)}/${encodeURIComponent(database)}`;
  }

  get monitorAddress(): string | undefined {
    const address = this.#monitoring?.address;
    return address && formatAddress(address);
  }

  get sessionCount(): number {
    return this.#parts.gateway!.sessionCount;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    this.#endReloading?.();
    const { stopTimeoutMs } = this.#settings;
    const endsAt = performance.now() + stopTimeoutMs;
    // The bridge ends first, because its functions may call the gateway.
    await this.#parts.bridge?.finish(stopTimeoutMs);
    const leftMs = Math.max(stopReserveMs, endsAt - performance.now());
    // Then the gateway refuses new sessions, without waiting for Postgres, which may not answer.
    const ended = Promise.all([this.#parts.gateway?.stop(leftMs), this.#parts.bridge?.stop(leftMs)]);
    const due = this.#stopDue?.();
    await this.#parts.addresses?.stop();
    this.#parts.stored?.stop();
    // Closing the session ends its queries.
    await this.#parts.watch?.stop();
    await due;
    await ended;
    await this.#monitoring?.stop();
  }

  async #open(options: ServeOptions, checked: CheckedServeOptions, tls: TlsCredentials | undefined): Promise<void> {
    const { signal } = options;
    const { settings, listen, secretsDirectories, databaseUrl, executorUrl } = checked;
    this.#settings = settings;
    let present: CompleteNatsServerOptions | undefined;
    let problem: HawserError | undefined;
    const watch = new ServerWatch({
      databaseUrl,
      logger: this.#logger,
      onOptions: (found) => {
        present = found;
        problem = undefined;
        this.#parts.gateway?.configure(found);
        this.#parts.bridge?.configure(found);
      },
      onDue: () => this.#due?.changed(),
      onAsked: (problem) => this.#monitoring?.asked(problem),
      onProblem: (found) => {
        problem = found;
        this.#parts.gateway?.reportProblem(found);
        if (present === undefined) this.#parts.bridge?.configure(undefined, found);
      },
    });
    this.#parts.watch = watch;
    const isMonitored = settings.monitor !== undefined || metricExporter !== undefined;
    if (isMonitored) await this.#monitor(settings.monitor, databaseUrl, signal);
    signal?.throwIfAborted();
    await this.#untilServed(signal, () => this.#prepareDatabase(databaseUrl, signal));
    await this.#untilServed(signal, () => watch.open());
    await this.#untilServed(signal, () => this.#heedOthers(watch));
    const metrics = this.#monitoring?.metrics;
    this.#parts.gateway = await Gateway.start(
      {
        listen,
        identity: watch.identity,
        tls,
        settings,
        secretsDirectories: secretsDirectories ?? [defaultSecretsDirectory],
        choice: this.#choice,
        logger: this.#logger,
        onCall: metrics && ((method, outcome, durationMs) => metrics.observeCall(method, outcome, durationMs)),
        refresh: () => watch.refresh(),
        reloadOthers: async (always, reloading) => this.#parts.bridge?.reload(always, reloading),
      },
      signal,
    );
    // The gateway gets the options and the problem that were read before its creation.
    this.#parts.gateway.configure(present);
    if (problem !== undefined) this.#parts.gateway.reportProblem(problem);
    const bridgeOptions: BridgeOptions = {
      databaseUrl,
      executorUrl,
      settings,
      secretsDirectories: secretsDirectories ?? [defaultSecretsDirectory],
      choice: this.#choice,
      version,
      logger: this.#logger,
      onBatch: (messages, durationMs) => metrics?.observeBatch(messages, durationMs),
      onRequest: (responder, durationMs) => metrics?.observeRequest(responder, durationMs),
    };
    this.#parts.bridge = await this.#untilServed(signal, () => Bridge.start(bridgeOptions, signal));
    this.#due = new DueRunner(watch.session.query, this.#logger);
    this.#stopDue = this.#due.start();
    this.#monitoring?.follow();
    if (this.#monitoring !== undefined) {
      const isLeading = () => this.#parts.bridge?.stats.epoch !== undefined;
      this.#parts.stored = new StoredCounts(watch.session, isLeading, this.#logger);
      void this.#parts.stored.run();
    }
    this.#parts.bridge.configure(present, problem);
    if (secretsDirectories === undefined) await this.#warnOfStrangers(present);
  }

  /**
   * Runs a step of the start, and runs it again while Postgres cannot serve it: Postgres may start after this process,
   * be full, or be failing over between two steps.
   *
   * @param step throws HawserError for a failure of Postgres, with its cause
   */
  async #untilServed<T>(signal: AbortSignal | undefined, step: () => Promise<T>): Promise<T> {
    let toldAt = Number.NEGATIVE_INFINITY;
    for (let failures = 1; ; failures += 1) {
      try {
        const result = await step();
        if (failures > 1) this.#logger.info({}, "Postgres answers");
        return result;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof HawserError) || !mayServeLater(error.cause)) throw error;
        this.#monitoring?.asked(error);
        if (performance.now() - toldAt >= postgresWaitLogMs) {
          const { code, message: problem } = error;
          this.#logger.warn({ code, problem }, "waiting for Postgres; Ctrl-C or SIGTERM ends the wait");
          toldAt = performance.now();
        }
      }
      await delay(backoffMs(postgresBackoff, failures), signal);
      signal?.throwIfAborted();
    }
  }

  async #prepareDatabase(databaseUrl: string | undefined, signal: AbortSignal | undefined): Promise<void> {
    const needs = { needsSession: true, needsSchema: true } as const;
    const action = "prepare the database";
    await migrate({ databaseUrl, logger: this.#logger, role: "hawser_bridge", action, ...needs, signal });
  }

  /**
   * Reads the servers of the other processes before the first connection, which goes to a server without processes if
   * possible.
   */
  async #heedOthers({ session }: ServerWatch): Promise<void> {
    try {
      this.#choice.setOthers(await standings(session));
    } catch (cause) {
      throw await explainServeRefusal(session, "read the NATS servers of other processes", cause);
    }
  }

  /** @param address of the monitoring port; undefined if metrics are only exported */
  async #monitor(
    address: string | undefined,
    databaseUrl: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    // The name is not read from Postgres, because the metrics are available before Postgres answers.
    const database = this.#settings.monitorDatabase ?? DatabaseAddress.of(databaseUrl).described.database;
    this.#monitoring = new Monitoring(this.#parts, database, this.#logger);
    if (address !== undefined) await this.#monitoring.listen(address, signal);
  }

  async #warnOfStrangers(options: CompleteNatsServerOptions | undefined): Promise<void> {
    const others = await strangersAmong(defaultSecretsDirectory, options);
    if (others.length === 0) return;
    const message =
      `${defaultSecretsDirectory} contains files that no option of the NATS server names, and a role that may define a server ` +
      "can make the gateway read them; keep its files in a directory of their own, and name it with --secrets-dir";
    this.#logger.warn({ others: others.length }, message);
  }

  #reload(credentials: TlsCredentials | undefined): (() => void) | undefined {
    credentials?.subscribe({
      onReloaded: (material) => {
        if (isBindable(certificateOf(material))) this.#logger.info({}, "the certificate has been renewed");
        else this.#logger.error({}, `Postgres can no longer connect: ${unbindable}`);
      },
      onReloadFailed: (err) => this.#logger.warn({ err }, "failed to renew the certificate; the old one stays in use"),
    });
    return credentials?.watch(systemClock);
  }

  async #announce(
    advertised: Address | undefined,
    tls: GatewayTls | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const listen = this.#parts.gateway!.address;
    const { host, port } = advertised ?? listen;
    this.#own = {
      host,
      port: port === 0 ? listen.port : port,
      sslmode: tls === undefined ? "disable" : (tls.sslmode ?? "require"),
      rootCertificate: tls?.rootCertificate,
    };
    const { session } = this.#parts.watch!;
    const address = { listen, own: this.#own, isAdvertised: advertised !== undefined };
    const bridge = this.#parts.bridge!;
    const { connectors } = bridge;
    const { subscriptions, ...others } = connectors;
    const placement = new NatsPlacement({
      choice: this.#choice,
      logger: this.#logger,
      subscriptions,
      others: [...Object.values(others), this.#parts.gateway!.connector],
      isLeading: () => bridge.stats.epoch !== undefined,
    });
    const placed: Placement = {
      get natsPlace() {
        return placement.standing;
      },
      get canLead() {
        return bridge.canLead;
      },
      async onOthers(owner, others) {
        if (others.some(({ isStale, canLead }) => canLead && !isStale)) await bridge.yieldLeadership();
        await placement.balance(owner, others);
      },
    };
    const addresses = new AddressBook(session, address, placed, this.#logger);
    this.#parts.addresses = addresses;
    connectors.subscriptions.on("connected", () => void addresses.update());
    await this.#untilServed(signal, async () => {
      try {
        await addresses.start();
      } catch (cause) {
        throw await explainServeRefusal(session, "register the address of the gateway", cause);
      }
    });
  }
}

const unbindable =
  "the certificate of the gateway is signed with Ed25519 or Ed448, which libpq does not support for channel binding; use one " +
  "that is signed with ECDSA or RSA";

function certificateOf({ contextOptions }: TlsMaterial): Uint8Array {
  return new X509Certificate(contextOptions.cert as Buffer).raw;
}

function refuseUnbindable(material: TlsMaterial): void {
  if (!isBindable(certificateOf(material))) throw new HawserError("invalid_argument", unbindable);
}
