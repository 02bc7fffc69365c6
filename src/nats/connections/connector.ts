/**
 * Connector: keeps up the connection to NATS that the options describe.
 *
 * A connector is off (without options), connecting, or connected. It connects in rounds: a round repeats attempts with
 * growing pauses until one succeeds. There is at most one round at a time, and a new one aborts the previous one, so
 * that an attempt with old options never replaces a connection with newer ones.
 *
 *   off → connecting          configure(options)
 *   connecting → connected    an attempt succeeds
 *   connected → connecting    the connection is lost, or options describe another one (the old one drains at once)
 *   connected → connected     reconnect(), move(), or lame duck mode (the old one serves until the new one is up)
 *   any → off                 configure(undefined), stop()
 *
 * A replaced connection accepts no new uses, and closes when its running uses have ended.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { type CompleteNatsServerOptions, connectionOptions } from "../../../generated/ts/nats-options/index.js";
import { type ServeSettings, serveSettingsDefaults } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import { backoffMs, delay, type Logger, RareLog, Waiters } from "../../foundation/runtime/index.js";
import { connectOnce, type Established, natsConnectTimeoutMs } from "./connect.js";
import { Listeners, type NatsConnectorEvents, watchConnection } from "./connection-events.js";
import { DrainingConnections } from "./draining.js";
import { SecretFiles } from "./secret-files.js";
import { type NatsAddress, natsAddresses, ServerChoice } from "./server-choice.js";

/** The first pause between two attempts to connect to NATS; it doubles. */
const natsReconnectMinMs = 100;
/** The longest pause between two attempts to connect to NATS. */
const natsReconnectMaxMs = 5_000;

/** Name, directories and collaborators of a {@link NatsConnector}. */
export interface NatsConnectorOptions extends Partial<Pick<ServeSettings, "natsWaitMs">> {
  /** Client name in the server's list of connections, such as "hawser gateway". */
  readonly name: string;
  /** Directories that may contain the files that options name. */
  readonly secretsDirectories: readonly string[];
  readonly logger: Logger;
  /** Order in which servers are tried, shared with other connectors. Default: an order of its own. */
  readonly choice?: ServerChoice;
  /** Current maximum duration of a use of a connection, in milliseconds, if it can exceed `natsDrainMs`. */
  readonly usesLastMs?: () => number;
  /** Random number from 0 to 1, for pauses. */
  readonly random?: () => number;
}

interface Round {
  readonly controller: AbortController;
  /** Server of `move`, the only one to try while the old connection serves; undefined to try all. */
  readonly target: NatsAddress | undefined;
  /** True between two attempts. */
  isPausing: boolean;
}

/** Keeps up a connection to NATS, and provides it, or the reason why there is none. */
export class NatsConnector implements AsyncDisposable {
  readonly #name: string;
  readonly #files: SecretFiles;
  readonly #logger: Logger;
  readonly #choice: ServerChoice;
  readonly #natsWaitMs: number;
  readonly #random: () => number;
  readonly #listeners: Listeners;
  readonly #rareLog: RareLog;
  readonly #draining: DrainingConnections;
  /** Waiters of `ready`, `reconnect` and `move`, settled by each attempt. */
  readonly #attemptWaiters = new Waiters();
  /** Waiters of `connected`, released when there is a connection, or when none can come. */
  readonly #connectionWaiters = new Waiters();
  readonly #rounds = new Set<Promise<void>>();

  #options: CompleteNatsServerOptions | undefined;
  /** Error that explains why there are no options; undefined if no NATS server is defined. */
  #notConfiguredReason: HawserError | undefined;
  #current: Established | undefined;
  #connectedAt = 0;
  /** True if the server of the current connection has announced its shutdown (lame duck mode). */
  #isServerEnding = false;
  #round: Round | undefined;
  /** Running or last attempt of {@link probe}. */
  #probing: { readonly controller: AbortController; readonly ended: Promise<void> } | undefined;
  /** Consecutive failed attempts. */
  #failures = 0;
  /** Consecutive connections that closed soon. */
  #shortConnections = 0;
  /** Reason why there is no connection. */
  #lastFailure: HawserError | undefined;
  /** Last logged failure; an identical one is not logged as a warning again. */
  #loggedFailure: string | undefined;
  /** Time since which there is no connection. */
  #downSince = 0;
  #stopped: Promise<void> | undefined;

  constructor(options: NatsConnectorOptions) {
    this.#name = options.name;
    this.#files = new SecretFiles(options.secretsDirectories);
    this.#logger = options.logger;
    this.#choice = options.choice ?? new ServerChoice();
    this.#natsWaitMs = options.natsWaitMs ?? serveSettingsDefaults.natsWaitMs;
    this.#random = options.random ?? Math.random;
    this.#draining = new DrainingConnections(options.usesLastMs ?? (() => 0));
    this.#listeners = new Listeners(options.logger);
    this.#rareLog = new RareLog(options.logger, options.name);
  }

  /** Options of the last `configure`, including secrets; undefined if there are none. */
  get options(): CompleteNatsServerOptions | undefined {
    return this.#options;
  }

  /** Current connection; undefined if there is none. It changes, so callers must read it each time. */
  get connection(): NatsConnection | undefined {
    return this.#current?.connection;
  }

  /** Server of the current connection; undefined if there is none. */
  get server(): NatsAddress | undefined {
    return this.#current?.server;
  }

  /** Reason why there is no connection; undefined if there is one, or the first attempt is still running. */
  get failure(): HawserError | undefined {
    return this.#lastFailure === undefined ? undefined : copyOf(this.#lastFailure);
  }

  /**
   * Marks a connection as used: if it is replaced, it closes only when its uses have ended, or after `natsDrainMs`, or
   * `usesLastMs` if that is longer.
   *
   * @returns function that ends the use; must be called once
   */
  use(connection: NatsConnection): () => void {
    return this.#draining.use(connection);
  }

  /**
   * True if the server has read everything that was published on the connection so far. The connection may have been
   * replaced meanwhile. False if the connection was lost, so that this is unknown. Makes a round trip; does not reject.
   */
  hasTaken(connection: NatsConnection): Promise<boolean> {
    return this.#draining.hasTaken(connection);
  }

  /** @returns function that removes the listener */
  on<Name extends keyof NatsConnectorEvents>(
    name: Name,
    listener: (...event: NatsConnectorEvents[Name]) => void,
  ): () => void {
    return this.#listeners.add(name, listener);
  }

  /**
   * Applies the options; undefined if there are none to connect with. If they describe another connection than before,
   * the current one is replaced. Returns at once; `ready` waits for the outcome.
   *
   * @param because error that explains why there are no options; undefined if no server is defined. Later errors
   * include it
   */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    if (this.#stopped !== undefined) return;
    this.#notConfiguredReason = because;
    const isSame = sameConnection(this.#options, options);
    this.#options = options === undefined ? undefined : Object.freeze({ ...options });
    if (isSame) return;
    this.#drainCurrent();
    if (options === undefined) {
      this.#endRound();
      this.#settleWaiters(notConfigured(because));
    } else {
      this.#startRound(0);
    }
  }

  /**
   * Makes a new connection even if no option has changed, and reads all files again. The old connection serves until
   * the new one is up; if that fails, it remains.
   *
   * @throws HawserError of the attempt, or `nats_not_configured`; the reason of the signal
   */
  async reconnect(signal?: AbortSignal): Promise<void> {
    this.#checkConfigured();
    signal?.throwIfAborted();
    const outcome = this.#attemptWaiters.next(signal);
    this.#startRound(0);
    await outcome;
  }

  /**
   * Tests whether the server accepts a connection with the options of the last `configure`, and closes it at once.
   *
   * @throws HawserError `nats_not_configured`, or the reason of the refusal
   */
  async probe(server: NatsAddress): Promise<void> {
    this.#checkConfigured();
    const controller = new AbortController();
    const trying = this.#connect(this.#options!, [server], controller.signal).then(({ connection }) =>
      connection.close(),
    );
    const ended = trying.catch(() => undefined);
    this.#probing = { controller, ended };
    await trying;
  }

  /**
   * Connects to the given server of the options, as `reconnect` does. Does nothing without a current connection, or
   * while a new one is being made.
   *
   * @throws HawserError of the attempt; the old connection remains
   */
  async move(server: NatsAddress): Promise<void> {
    if (this.#current === undefined || this.#round !== undefined || this.#stopped !== undefined) return;
    const outcome = this.#attemptWaiters.next();
    this.#startRound(0, server);
    await outcome;
  }

  /**
   * Resolves when there is a connection with the options of the last `configure`.
   *
   * @throws HawserError of the attempt that failed, or `nats_not_configured`; the reason of the signal
   */
  async ready(signal?: AbortSignal): Promise<void> {
    this.#checkConfigured();
    if (this.#current !== undefined) return;
    if (this.#round?.isPausing && this.#lastFailure !== undefined && this.#failures > 0)
      throw copyOf(this.#lastFailure);
    await this.#attemptWaiters.next(signal);
  }

  /**
   * Current connection. Without one, waits until `natsWaitMs` after it was lost (or after the options were applied).
   *
   * @throws HawserError `nats_not_configured`, or the failure of the last attempt: `nats_unavailable`,
   * `nats_unauthorized`, `secret_file`; the reason of the signal
   */
  async connected(signal?: AbortSignal): Promise<NatsConnection> {
    for (;;) {
      if (this.#current !== undefined) return this.#current.connection;
      this.#checkConfigured();
      // Computed again after each wait: a timer may fire slightly early, and the next call should not wait for the
      // rest.
      const remainingMs = this.#downSince + this.#natsWaitMs - performance.now();
      if (remainingMs < 1) break;
      await this.#connectionWaiters.next(signal, remainingMs);
    }
    if (this.#lastFailure !== undefined) throw copyOf(this.#lastFailure);
    const detail = `Connecting has taken longer than ${this.#natsWaitMs} ms.`;
    throw new HawserError("nats_unavailable", "there is no connection to the NATS server yet", { detail });
  }

  /**
   * Sends what was published, and closes. Leaves nothing behind that would keep the process alive.
   *
   * @param limitMs time limit for the server to confirm that it has read everything; after that the connection is
   * closed anyway
   */
  stop(limitMs: number = natsConnectTimeoutMs): Promise<void> {
    this.#stopped ??= this.#stop(limitMs);
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(limitMs: number): Promise<void> {
    this.#endRound();
    this.#probing?.controller.abort(stoppedError());
    this.#drainCurrent();
    // The released waiters read #stopped, so it must be assigned first.
    await Promise.resolve();
    this.#settleWaiters(stoppedError());
    await Promise.all([...this.#rounds, this.#probing?.ended, this.#draining.end(limitMs)]);
    this.#rareLog.end();
  }

  #checkConfigured(): void {
    if (this.#stopped !== undefined) throw stoppedError();
    if (this.#options === undefined) throw notConfigured(this.#notConfiguredReason);
  }

  #settleWaiters(error: HawserError): void {
    this.#attemptWaiters.settle(error);
    this.#connectionWaiters.settle();
  }

  /** Drains the current connection, if there is one. */
  #drainCurrent(): void {
    const { connection } = this.#current ?? {};
    this.#current = undefined;
    this.#downSince = performance.now();
    this.#lastFailure = undefined;
    if (connection !== undefined) this.#draining.drain(connection);
  }

  #endRound(): void {
    this.#round?.controller.abort(new Error("superseded"));
    this.#round = undefined;
  }

  #startRound(pauseMs: number, target?: NatsAddress): void {
    this.#endRound();
    this.#failures = 0;
    const round: Round = { controller: new AbortController(), target, isPausing: false };
    this.#round = round;
    const running = this.#run(round, this.#options!, pauseMs);
    this.#rounds.add(running);
    void running.finally(() => this.#rounds.delete(running));
  }

  async #run(round: Round, options: CompleteNatsServerOptions, firstPauseMs: number): Promise<void> {
    const { signal } = round.controller;
    for (let pauseMs = firstPauseMs; !signal.aborted; ) {
      round.isPausing = true;
      if (pauseMs > 0) await delay(pauseMs, signal);
      round.isPausing = false;
      try {
        const established = await this.#connect(options, this.#serversOf(round, options), signal);
        if (signal.aborted) this.#draining.drain(established.connection);
        else this.#onConnected(established);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const failure = asHawserError(error);
        if (this.#current !== undefined && !this.#isServerEnding) {
          // The round ends, because the connection that it was to replace remains.
          this.#round = undefined;
          this.#onFailed(failure, {}, "cannot make a new connection to NATS; the old one remains");
          return;
        }
        this.#failures += 1;
        if (this.#current === undefined) this.#lastFailure = failure;
        pauseMs = this.#pauseAfterFailureMs(this.#failures);
        round.isPausing = true;
        this.#onFailed(failure, { retryMs: Math.round(pauseMs) }, "cannot connect to NATS");
      }
    }
  }

  #serversOf({ target }: Round, options: CompleteNatsServerOptions): readonly NatsAddress[] {
    const isConnected = this.#current !== undefined && !this.#isServerEnding;
    return target !== undefined && isConnected ? [target] : this.#choice.order(natsAddresses(options));
  }

  async #connect(
    options: CompleteNatsServerOptions,
    servers: readonly NatsAddress[],
    signal: AbortSignal,
  ): Promise<Established> {
    const established = await connectOnce({
      name: this.#name,
      options,
      files: this.#files,
      servers,
      signal,
      onFailed: (server) => this.#choice.markUnavailable(server),
      // The message is not logged: the listener may log it.
      onDefect: (error) =>
        this.#logger.error({ client: this.#name, err: error }, "the handler of a NATS message failed"),
    });
    this.#choice.markAvailable(established.server);
    return established;
  }

  #onFailed(failure: HawserError, more: object, message: string): void {
    const isNew = this.#loggedFailure !== failure.message;
    this.#loggedFailure = failure.message;
    const { code, detail } = failure;
    this.#logger[isNew ? "warn" : "debug"]({ client: this.#name, code, detail, ...more }, message);
    // Listeners come last, because they may call `configure`.
    this.#attemptWaiters.settle(failure);
    this.#listeners.emit("failed", failure);
  }

  #onConnected(established: Established): void {
    const { connection, server } = established;
    this.#round = undefined;
    const before = this.#current;
    this.#current = established;
    this.#connectedAt = performance.now();
    this.#isServerEnding = false;
    this.#lastFailure = undefined;
    this.#loggedFailure = undefined;
    this.#observe(established);
    if (before !== undefined) this.#draining.drain(before.connection);
    this.#logger.info(
      { client: this.#name, server: server.name, serverId: connection.info?.server_id },
      "connected to NATS",
    );
    this.#attemptWaiters.settle();
    this.#connectionWaiters.settle();
    this.#listeners.emit("connected", connection);
  }

  #observe(established: Established): void {
    const client = this.#name;
    const isCurrent = (): boolean => this.#current === established;
    void watchConnection(established, {
      onRefused: (refusal) => {
        this.#rareLog.warn("the NATS server does not permit an operation", refusal.message);
        this.#listeners.emit("refused", refusal, established.connection);
      },
      onServerEnding: () => {
        if (!isCurrent() || this.#isServerEnding) return;
        this.#isServerEnding = true;
        this.#choice.markUnavailable(established.server);
        this.#logger.info({ client }, "the NATS server announces its shutdown; connecting again");
        if (this.#round === undefined) this.#startRound(0);
      },
      onServerError: (words) => this.#rareLog.warn("the NATS server reports an error", words),
    });
    void established.ended.then((error) => {
      if (!isCurrent()) return;
      this.#choice.markUnavailable(established.server);
      this.#onLost(error);
    });
  }

  #onLost(error: HawserError): void {
    const now = performance.now();
    this.#shortConnections = now - this.#connectedAt > natsReconnectMaxMs ? 0 : this.#shortConnections + 1;
    this.#current = undefined;
    this.#downSince = now;
    this.#lastFailure = error;
    this.#logger.warn({ client: this.#name, code: error.code, detail: error.detail }, "lost the connection to NATS");
    if (this.#round === undefined) {
      // A server that accepts connections and closes them at once must not be tried again without a pause.
      const isCutOff = this.#shortConnections > 1;
      this.#startRound(
        isCutOff ? this.#pauseAfterFailureMs(this.#shortConnections) : natsReconnectMinMs * this.#random(),
      );
    }
    this.#listeners.emit("lost", error);
  }

  /**
   * Backoff with jitter, from half to all of the delay, so that the clients of a restarted server do not connect all at
   * once.
   */
  #pauseAfterFailureMs(failures: number): number {
    const limits = { minMs: 2 * natsReconnectMinMs, maxMs: natsReconnectMaxMs };
    return backoffMs({ ...limits, jitter: 0.5, random: this.#random }, failures);
  }
}

/** Error of an attempt as a HawserError. */
function asHawserError(error: unknown): HawserError {
  if (error instanceof HawserError) return error;
  return new HawserError("internal", "connecting to NATS failed with an unexpected error", { cause: error });
}

/** Error when there are no options. @param because reason; undefined if no server is defined */
function notConfigured(because?: HawserError): HawserError {
  if (because === undefined)
    return new HawserError("nats_not_configured", "no NATS server is defined in this database");
  const { message, detail, remedy } = because;
  return new HawserError("nats_not_configured", message, { detail, remedy, cause: because });
}

/** Error after `stop`. */
function stoppedError(): HawserError {
  const detail = "Hawser is closing its connections.";
  return new HawserError("nats_unavailable", "the connection to the NATS server is being closed", { detail });
}

/** Copy of an error for another caller, with the stack of that call. */
function copyOf({ code, message, detail, remedy, cause }: HawserError): HawserError {
  return new HawserError(code, message, { detail, remedy, cause });
}

/** True if both describe the same connection, regardless of other options, or both are undefined. */
function sameConnection(
  one: CompleteNatsServerOptions | undefined,
  other: CompleteNatsServerOptions | undefined,
): boolean {
  if (one === undefined || other === undefined) return one === other;
  return connectionOptions.every((name) => one[name] === other[name]);
}
