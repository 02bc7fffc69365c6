/** Gateway: accepts calls from Postgres, and carries them out over NATS. */
import { setTimeout as delay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import type { ServeSettings } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";
import { NatsConnector, type ServerChoice } from "../nats/index.js";
import { inTime, type Logger, Semaphore, stopReserveMs } from "../runtime/index.js";
import { type CallObserver, Calls, type GatewayCall, observed, remainingMs } from "./calls.js";
import { fileBytesOf, NatsHandler } from "./nats-handler.js";
import { PostgresServer, type TlsSource } from "./protocol/index.js";

/** Database that the gateway serves, and the credentials with which Postgres connects to it. */
export interface GatewayIdentity {
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** Addresses, settings and callbacks of a {@link Gateway}. */
export interface GatewayOptions {
  /** Host and port to listen on. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly identity: GatewayIdentity;
  readonly tls: TlsSource | undefined;
  readonly settings: ServeSettings;
  readonly secretsDirectories: readonly string[];
  readonly choice: ServerChoice;
  readonly logger: Logger;
  /** Called after each call. */
  readonly onCall?: CallObserver | undefined;
  /**
   * Reads the definition of the NATS server again, and resolves after it has called {@link Gateway.configure}.
   * Concurrent callers share one read.
   */
  refresh(): Promise<void>;
  /** Reconnects the other connections to NATS: always, or only if something has changed. */
  reloadOthers(always: boolean, signal: AbortSignal): Promise<void>;
}

/** Time limit for the authentication of a database session. */
const startupTimeoutMs = 5_000;
/** The largest message before authentication. */
const maxStartupBytes = 10_000;
/** The least time between forced reloads; all requests meanwhile share the next one. */
const forcedReloadPauseMs = 1_000;

/** Capacity while no server is defined, when calls fail at once. */
const idleCapacity = 128;

export class Gateway {
  readonly #connector: NatsConnector;
  /** Capacity for concurrent commands. */
  readonly #semaphore = new Semaphore(idleCapacity);
  readonly #options: GatewayOptions;
  #server: PostgresServer | undefined;
  #isStopping = false;
  /** Next forced reload, which has not started. */
  #forced: Promise<void> | undefined;
  /** Start of the last forced reload (`performance.now()`, ms). */
  #forcedAt = Number.NEGATIVE_INFINITY;

  private constructor(options: GatewayOptions) {
    const { logger, secretsDirectories, choice } = options;
    const { natsWaitMs } = options.settings;
    this.#options = options;
    this.#connector = new NatsConnector({ name: "hawser gateway", secretsDirectories, choice, logger, natsWaitMs });
  }

  /** @throws HawserError `bind_failed`, `invalid_argument` */
  static async start(options: GatewayOptions, signal?: AbortSignal): Promise<Gateway> {
    const gateway = new Gateway(options);
    try {
      await gateway.#listen(signal);
    } catch (error) {
      await gateway.#connector.stop();
      throw error;
    }
    return gateway;
  }

  /** Listen address, with the actual port. */
  get address(): { readonly host: string; readonly port: number } {
    return this.#server!.address;
  }

  /** True while database sessions are accepted. */
  get isListening(): boolean {
    return this.#server !== undefined && !this.#isStopping;
  }

  /** Number of connected database sessions. */
  get sessionCount(): number {
    return this.#server!.sessionCount;
  }

  /** Applies the options of the NATS server; undefined if none is defined. Reconnects if they have changed. */
  configure(options: CompleteNatsServerOptions | undefined): void {
    if (options !== undefined) this.#semaphore.limit = options.capacity;
    this.#connector.configure(options);
  }

  /** Reports why the options cannot be read or used. Current options remain; without any, callers get the problem. */
  reportProblem(problem: HawserError): void {
    if (this.#connector.options === undefined) this.#connector.configure(undefined, problem);
  }

  /** Connector of the gateway's connection to NATS. */
  get connector(): NatsConnector {
    return this.#connector;
  }

  /** Accepts no more calls, waits for running ones until the deadline, and closes all connections. */
  async stop(deadlineMs: number): Promise<void> {
    this.#isStopping = true;
    const endsAt = performance.now() + deadlineMs;
    await this.#server?.stop({ deadlineMs });
    await this.#connector.stop(Math.max(stopReserveMs, endsAt - performance.now()));
  }

  async #listen(signal: AbortSignal | undefined): Promise<void> {
    const { listen, identity, tls, settings, logger } = this.#options;
    const handler = new NatsHandler({
      connector: this.#connector,
      maxFileBytes: fileBytesOf(settings.maxResponseBytes),
      // Failures are reported through {@link reportProblem}.
      readDefinition: () => this.#options.refresh().catch(() => undefined),
      reload: (always, call) => this.#reload(always, call),
    });
    const calls = new Calls(handler, this.#semaphore, settings);
    this.#server = await PostgresServer.listen(
      {
        startupTimeoutMs,
        maxStartupBytes,
        ...settings,
        ...listen,
        user: identity.user,
        database: identity.database,
        password: identity.password,
        tls,
        logger,
        answer: observed((query, client) => calls.answer(query, client), this.#options.onCall),
        onClientEnd: (client) => handler.forget(client),
      },
      signal,
    );
  }

  async #reload(always: boolean, call: GatewayCall): Promise<void> {
    await this.#options.refresh();
    await inTime(
      remainingMs(call),
      () => this.#connector.failure ?? connectTimeout(call),
      async (signal) => {
        if (always) await this.#forceReload();
        else await Promise.all([this.#connector.ready(signal), this.#options.reloadOthers(false, signal)]);
      },
    );
  }

  /**
   * Replaces all connections to NATS. Callers share a reload that has not started, and reloads start at least
   * `forcedReloadPauseMs` apart.
   */
  #forceReload(): Promise<void> {
    this.#forced ??= delay(this.#forcedAt + forcedReloadPauseMs - performance.now(), undefined, { ref: false }).then(
      async () => {
        this.#forced = undefined;
        this.#forcedAt = performance.now();
        const signal = AbortSignal.timeout(this.#options.settings.maxCallTimeoutMs);
        await Promise.all([this.#connector.reconnect(signal), this.#options.reloadOthers(true, signal)]);
      },
    );
    return this.#forced;
  }
}

function connectTimeout({ timeoutMs }: GatewayCall): HawserError {
  return new HawserError("nats_timeout", `the connection to the NATS server was not made within ${timeoutMs} ms`);
}
