/**
 * Server that `hawser serve` runs: follows the definition of the NATS server in Postgres, and answers the SQL
 * functions.
 */
import { X509Certificate } from "node:crypto";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import { metricExporter } from "../../foundation/monitor/index.js";
import { DatabaseAddress, mayServeLater, postgresBackoff } from "../../foundation/postgres/index.js";
import {
  backoffMs,
  delay,
  type Logger,
  silentLogger,
  stopReserveMs,
  systemClock,
  version,
} from "../../foundation/runtime/index.js";
import { TlsCredentials, type TlsMaterial } from "../../foundation/tls/index.js";
import { explainServeRefusal, migrate } from "../../jobs-and-peers/migrations/index.js";
import { DueRunner } from "../../jobs-and-peers/queue/schedules/index.js";
import { formatAddress } from "../../jobs-and-peers/wire/index.js";
import { Bridge } from "../bridge/index.js";
import { ServerChoice } from "../connections/index.js";
import { AddressBook, Gateway, type GatewayAddress, isBindable, natsServersInUse } from "../gateway/index.js";
import { type MonitoredParts, Monitoring } from "./monitoring.js";
import { NatsPlacement } from "./nats-placement.js";
import { StoredCounts } from "./periodic-counts.js";
import { type CheckedServeOptions, checkServeOptions, type ServeOptions, strangersAmong } from "./serve-options.js";
import { ServerWatch } from "./server-watch.js";

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
 * `not_permitted`, `transaction_pooler`, `schema_missing`, `schema_too_new`; the reason of `signal`
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

class Server implements HawserServer {
  readonly #options: ServeOptions;
  readonly #checked: CheckedServeOptions;
  readonly #credentials: TlsCredentials | undefined;
  readonly #logger: Logger;
  /** Server choice of all connections to NATS. */
  readonly #choice = new ServerChoice();
  readonly #parts: MonitoredParts = {};
  #monitoring: Monitoring | undefined;
  #stopDue: (() => Promise<void>) | undefined;
  #own: GatewayAddress | undefined;
  #endReloading: (() => void) | undefined;
  #stopping: Promise<void> | undefined;

  private constructor(options: ServeOptions) {
    this.#options = options;
    this.#checked = checkServeOptions(options);
    const { tls, logger = silentLogger } = options;
    this.#credentials = tls === undefined ? undefined : new TlsCredentials({ cert: tls.cert, key: tls.key });
    if (this.#credentials !== undefined) refuseUnbindable(this.#credentials.current);
    this.#logger = logger;
  }

  static async start(options: ServeOptions): Promise<Server> {
    const server = new Server(options);
    const { signal } = options;
    // An unreachable Postgres would delay the abort.
    const end = (): void => void server.#parts.watch?.stop();
    signal?.addEventListener("abort", end);
    try {
      await server.#start();
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
    const { stopTimeoutMs } = this.#checked.settings;
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

  /** Starts the parts in the order of `index.ts`. Each uses those above it. */
  async #start(): Promise<void> {
    await this.#startMonitoring();
    const watch = this.#newWatch();
    await this.#untilServed(() => this.#prepareDatabase());
    await this.#untilServed(() => watch.open());
    await this.#untilServed(() => this.#heedOthers(watch));
    const gateway = await this.#startGateway(watch);
    watch.follow(gateway);
    const bridge = await this.#untilServed(() => this.#startBridge());
    this.#monitoring?.follow();
    watch.follow(bridge);
    this.#startDue(watch);
    if (this.#monitoring !== undefined) this.#startCounting(watch, bridge);
    if (this.#checked.secretsDirectories === undefined) await this.#warnOfStrangers(watch.options);
    this.#endReloading = this.#reload();
    await this.#announce(watch, gateway, bridge);
  }

  /**
   * Runs a step of the start, and runs it again while Postgres cannot serve it: Postgres may start after this process,
   * be full, or be failing over between two steps.
   *
   * @param step throws HawserError for a failure of Postgres, with its cause
   */
  async #untilServed<T>(step: () => Promise<T>): Promise<T> {
    const { signal } = this.#options;
    let toldAt = Number.NEGATIVE_INFINITY;
    for (let failures = 1; ; failures += 1) {
      signal?.throwIfAborted();
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
    }
  }

  /** Starts before Postgres answers, so that a process that waits for Postgres can be watched. */
  async #startMonitoring(): Promise<void> {
    const { settings, databaseUrl } = this.#checked;
    const { monitor, monitorDatabase } = settings;
    if (monitor === undefined && metricExporter === undefined) return;
    const database = monitorDatabase ?? DatabaseAddress.of(databaseUrl).described.database;
    this.#monitoring = new Monitoring(this.#parts, database, this.#credentials, this.#logger);
    if (monitor !== undefined) await this.#monitoring.listen(monitor, this.#options.signal);
  }

  #newWatch(): ServerWatch {
    const onAsked = (problem: HawserError | undefined) => this.#monitoring?.asked(problem);
    const watch = new ServerWatch({ databaseUrl: this.#checked.databaseUrl, logger: this.#logger, onAsked });
    this.#parts.watch = watch;
    return watch;
  }

  async #prepareDatabase(): Promise<void> {
    const { databaseUrl } = this.#checked;
    const needs = { needsSession: true, needsSchema: true } as const;
    const action = "prepare the database";
    const { signal } = this.#options;
    await migrate({ databaseUrl, logger: this.#logger, role: "hawser_bridge", action, ...needs, signal });
  }

  /**
   * Reads the servers of the other processes before the first connection, which goes to a server without processes if
   * possible.
   */
  async #heedOthers({ session }: ServerWatch): Promise<void> {
    try {
      this.#choice.setOthers(await natsServersInUse(session));
    } catch (cause) {
      throw await explainServeRefusal(session, "read the NATS servers of other processes", cause);
    }
  }

  async #startGateway(watch: ServerWatch): Promise<Gateway> {
    const { listen, settings, secretsDirectories = [defaultSecretsDirectory] } = this.#checked;
    const metrics = this.#monitoring?.metrics;
    const gateway = await Gateway.start(
      {
        ...{ listen, settings, secretsDirectories, choice: this.#choice, logger: this.#logger },
        identity: watch.identity,
        tls: this.#credentials,
        definition: watch,
        onCall: metrics && ((method, outcome, durationMs) => metrics.observeCall(method, outcome, durationMs)),
      },
      this.#options.signal,
    );
    this.#parts.gateway = gateway;
    return gateway;
  }

  async #startBridge(): Promise<Bridge> {
    const { databaseUrl, executorUrl, settings, secretsDirectories = [defaultSecretsDirectory] } = this.#checked;
    const metrics = this.#monitoring?.metrics;
    const bridge = await Bridge.start(
      {
        ...{ databaseUrl, executorUrl, settings, secretsDirectories, choice: this.#choice, logger: this.#logger },
        version,
        onBatch: (messages, durationMs) => metrics?.observeBatch(messages, durationMs),
        onRequest: (responder, durationMs) => metrics?.observeRequest(responder, durationMs),
      },
      this.#options.signal,
    );
    this.#parts.bridge = bridge;
    return bridge;
  }

  #startDue(watch: ServerWatch): void {
    const due = new DueRunner(watch.session.query, this.#logger);
    watch.onDue = (payload) => due.changed(payload);
    this.#stopDue = due.start();
  }

  #startCounting(watch: ServerWatch, bridge: Bridge): void {
    const stored = new StoredCounts(watch.session, () => bridge.stats.epoch !== undefined, this.#logger);
    this.#parts.stored = stored;
    void stored.run();
  }

  async #warnOfStrangers(options: CompleteNatsServerOptions | undefined): Promise<void> {
    const others = await strangersAmong(defaultSecretsDirectory, options);
    if (others.length === 0) return;
    const message =
      `${defaultSecretsDirectory} contains files that no option of the NATS server names, and a role that may define a server ` +
      "can make the gateway read them; keep its files in a directory of their own, and name it with --secrets-dir";
    this.#logger.warn({ others: others.length }, message);
  }

  /** @returns function that ends the watch of the certificate */
  #reload(): (() => void) | undefined {
    this.#credentials?.subscribe({
      onReloaded: (material) => {
        if (isBindable(certificateOf(material))) this.#logger.info({}, "the certificate has been renewed");
        else this.#logger.error({}, `Postgres can no longer connect: ${unbindable}`);
        void this.#parts.addresses?.update();
      },
      onReloadFailed: (err) => this.#logger.warn({ err }, "failed to renew the certificate; the old one stays in use"),
    });
    return this.#credentials?.watch(systemClock);
  }

  async #announce({ session }: ServerWatch, gateway: Gateway, bridge: Bridge): Promise<void> {
    const { advertised } = this.#checked;
    const { tls } = this.#options;
    const listen = gateway.address;
    const { host, port } = advertised ?? listen;
    this.#own = {
      host,
      port: port === 0 ? listen.port : port,
      sslmode: tls === undefined ? "disable" : (tls.sslmode ?? "require"),
      rootCertificate: tls?.rootCertificate,
    };
    const address = {
      ...{ listen, own: this.#own, isAdvertised: advertised !== undefined },
      certificateEndsAt: () => {
        const endsAt = this.#credentials?.current.validUntil;
        return Number.isNaN(endsAt) ? undefined : endsAt;
      },
    };
    const placement = new NatsPlacement({ choice: this.#choice, logger: this.#logger, gateway, bridge });
    const addresses = new AddressBook(session, address, placement, this.#logger);
    this.#parts.addresses = addresses;
    bridge.connectors.subscriptions.on("connected", () => void addresses.update());
    await this.#untilServed(async () => {
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
