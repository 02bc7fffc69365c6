/** Gateway: accepts calls from Postgres, and carries them out over NATS. */
import { setTimeout as delay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import type { ServeSettings } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import { inTime, type Logger, Semaphore, stopReserveMs } from "../../foundation/runtime/index.js";
import { NatsConnector, type ServerChoice } from "../connections/index.js";
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
  readonly definition: ServerDefinition;
}

/** Definition of the NATS server in Postgres, which all connections to NATS of this process follow. */
export interface ServerDefinition {
  /**
   * Reads the definition again, and resolves after it has called {@link Gateway.configure}. Concurrent callers share
   * one read.
   *
   * @throws HawserError if it cannot be read
   */
  refresh(): Promise<void>;
  /**
   * Reloads all connections; see {@link Gateway.reload}.
   *
   * @throws HawserError if a connection fails
   */
  reload(always: boolean, signal: AbortSignal): Promise<void>;
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
  /** Connector of the gateway's connection to NATS. */
  readonly connector: NatsConnector;
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
    this.connector = new NatsConnector({ name: "hawser gateway", secretsDirectories, choice, logger, natsWaitMs });
  }

  /** @throws HawserError `bind_failed`, `invalid_argument` */
  static async start(options: GatewayOptions, signal?: AbortSignal): Promise<Gateway> {
    const gateway = new Gateway(options);
    try {
      await gateway.#listen(signal);
    } catch (error) {
      await gateway.connector.stop();
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

  /**
   * Applies the options of the NATS server; undefined if there are none. Reconnects if they have changed.
   *
   * @param because error that explains why there are no options; undefined if the database defines no NATS server
   */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    if (options !== undefined) this.#semaphore.limit = options.capacity;
    this.connector.configure(options, because);
  }

  /**
   * Resolves when the connection with the options of the last `configure` is up.
   *
   * @param always reconnects even if nothing has changed
   * @throws HawserError if the connection fails
   */
  async reload(always: boolean, signal: AbortSignal): Promise<void> {
    await (always ? this.connector.reconnect(signal) : this.connector.ready(signal));
  }

  /** Accepts no more calls, waits for running ones until the deadline, and closes all connections. */
  async stop(deadlineMs: number): Promise<void> {
    this.#isStopping = true;
    const endsAt = performance.now() + deadlineMs;
    await this.#server?.stop({ deadlineMs });
    await this.connector.stop(Math.max(stopReserveMs, endsAt - performance.now()));
  }

  async #listen(signal: AbortSignal | undefined): Promise<void> {
    const { listen, identity, tls, settings, logger } = this.#options;
    const handler = new NatsHandler({
      connector: this.connector,
      maxFileBytes: fileBytesOf(settings.maxResponseBytes),
      // Failures are reported through {@link configure}.
      readDefinition: () => this.#options.definition.refresh().catch(() => undefined),
      reload: (always, call) => this.#reloadAll(always, call),
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

  async #reloadAll(always: boolean, call: GatewayCall): Promise<void> {
    const { definition } = this.#options;
    await definition.refresh();
    await inTime(
      remainingMs(call),
      () => this.connector.failure ?? connectTimeout(call),
      async (signal) => {
        if (always) await this.#forceReload();
        else await definition.reload(false, signal);
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
        await this.#options.definition.reload(true, signal);
      },
    );
    return this.#forced;
  }
}

function connectTimeout({ timeoutMs }: GatewayCall): HawserError {
  return new HawserError("nats_timeout", `the connection to the NATS server was not made within ${timeoutMs} ms`);
}
