/**
 * The gateway: Postgres asks it, and it asks NATS.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants, type ServeSettings } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";
import { NatsConnector, type ServerChoice } from "../nats/index.js";
import { inTime, type Logger, Semaphore } from "../runtime/index.js";
import { type CallObserver, Calls, type GatewayCall, leftMs, observed } from "./calls.js";
import { fileBytesOf, NatsHandler } from "./nats-handler.js";
import { PostgresServer, type TlsSource } from "./protocol/index.js";

/** What Postgres proves itself with to the gateway, and for which database. */
export interface GatewayIdentity {
  readonly database: string;
  readonly user: string;
  readonly password: string;
}

/** How a gateway is made. */
export interface GatewayOptions {
  /** Host and port to listen on. */
  readonly listen: { readonly host: string; readonly port: number };
  readonly identity: GatewayIdentity;
  readonly tls: TlsSource | undefined;
  readonly settings: ServeSettings;
  readonly secretsDirectories: readonly string[];
  readonly choice: ServerChoice;
  readonly logger: Logger;
  /** Is told of each call. */
  readonly onCall?: CallObserver | undefined;
  /** Reads the definition of the server again, once for all that ask meanwhile; `configure` has been called with it when this resolves. */
  refresh(): Promise<void>;
  /** Has the other connections to NATS made anew: always, or only if something has changed. */
  reloadOthers(always: boolean, signal: AbortSignal): Promise<void>;
}

const { stopReserveMs, forcedReloadPauseMs } = gatewayConstants;

/** Commands at once while no server is defined: their calls fail, and need no more. */
const idleCapacity = 128;

/** A running gateway. */
export class Gateway {
  readonly #connector: NatsConnector;
  /** For commands at once. */
  readonly #semaphore = new Semaphore(idleCapacity);
  readonly #options: GatewayOptions;
  #server: PostgresServer | undefined;
  #isStopping = false;
  /** The next forced reload, which has not begun. */
  #forced: Promise<void> | undefined;
  /** When the last one began, by `performance.now()`. */
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

  /** Where it listens, with the real port. */
  get address(): { readonly host: string; readonly port: number } {
    return this.#server!.address;
  }

  /** It takes database sessions. */
  get isListening(): boolean {
    return this.#server !== undefined && !this.#isStopping;
  }

  /** Database sessions that are connected. */
  get sessionCount(): number {
    return this.#server!.sessionCount;
  }

  /** The options of the NATS server; undefined if none is defined. Connects anew if they differ from the present ones. */
  configure(options: CompleteNatsServerOptions | undefined): void {
    if (options !== undefined) this.#semaphore.limit = options.capacity;
    this.#connector.configure(options);
  }

  /** Why the options cannot be read or used. Those that are in force stay; where there are none, callers are told. */
  misses(problem: HawserError): void {
    if (this.#connector.options === undefined) this.#connector.configure(undefined, problem);
  }

  /** Whether it is connected to NATS, and how often it has connected anew. */
  get connector(): NatsConnector {
    return this.#connector;
  }

  /** Takes no more calls, waits for those under way, no longer than the deadline, and closes what was opened. */
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
      // What goes wrong has been told to {@link misses}.
      readDefinition: () => this.#options.refresh().catch(() => undefined),
      reload: (always, call) => this.#reload(always, call),
    });
    const calls = new Calls(handler, this.#semaphore, settings);
    this.#server = await PostgresServer.listen(
      {
        ...gatewayConstants,
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
      leftMs(call),
      () => this.#connector.failure ?? connectingLate(call),
      async (signal) => {
        if (always) await this.#forceReload();
        else await Promise.all([this.#connector.ready(signal), this.#options.reloadOthers(false, signal)]);
      },
    );
  }

  /** Connects anew: once for all that ask before it begins, and no sooner than a pause after the last time. */
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

function connectingLate({ timeoutMs }: GatewayCall): HawserError {
  return new HawserError("nats_timeout", `connecting to the NATS server has not ended within ${timeoutMs} ms`);
}
