/**
 * The connection to NATS that the options describe, kept up.
 *
 * A connector is off (no options), connecting, or connected. It connects in rounds: a round tries until it has a connection,
 * with growing pauses. There is at most one round at a time, and a new one ends the one before, so that what was begun
 * with old options never takes the place of something newer.
 *
 *   off → connecting          configure(options)
 *   connecting → connected    an attempt succeeds
 *   connected → connecting    the connection is lost; options that describe another one (the old one is left at once)
 *   connected → connected     reconnect(), move(), or the server announces its end: the old one serves until the new one is up
 *   any → off                 configure(undefined), stop()
 *
 * A connection that is left takes nothing new, and closes when what is under way on it has ended.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { type CompleteNatsServerOptions, connectionOptions } from "../../generated/ts/nats-options/index.js";
import { gatewayConstants, type ServeSettings, serveSettingsDefaults } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";
import { backoffMs, delay, type Logger, RareLog } from "../runtime/index.js";
import { connectOnce, type Established } from "./connect.js";
import { Listeners, type NatsConnectorEvents, watchConnection } from "./connection-events.js";
import { DrainingConnections } from "./draining.js";
import { SecretFiles } from "./secret-files.js";
import { type NatsAddress, natsAddresses, ServerChoice } from "./server-choice.js";

const { natsReconnectMinMs, natsReconnectMaxMs, natsConnectTimeoutMs } = gatewayConstants;

/** How a connector is made. */
export interface NatsConnectorOptions extends Partial<Pick<ServeSettings, "natsWaitMs">> {
  /** The name of this client in the server's lists, such as "hawser gateway". */
  readonly name: string;
  /** Where the files that options name may be. */
  readonly secretsDirectories: readonly string[];
  readonly logger: Logger;
  /** In which order the servers of the options are tried, also by other connectors. Default: a choice of its own. */
  readonly choice?: ServerChoice;
  /** How long what uses a connection may last now, in milliseconds, if that can be longer than `natsDrainMs`. */
  readonly usesLastMs?: () => number;
  /** 0 to 1, for pauses. */
  readonly random?: () => number;
}

interface Round {
  readonly controller: AbortController;
  /** The one server that the connector moves to, as long as the old connection serves. */
  readonly target: NatsAddress | undefined;
  /** Between two attempts. */
  isPausing: boolean;
}

/** Keeps up the connection to NATS that the options describe, and says where there is one, or why there is none. */
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
  /** Of `ready` and `reconnect`: settled by each attempt. */
  readonly #outcomes = new Waiters();
  /** Of `connected`: released when there is a connection, or none to wait for. */
  readonly #arrivals = new Waiters();
  readonly #rounds = new Set<Promise<void>>();

  #options: CompleteNatsServerOptions | undefined;
  /** Why there are no options, if it is not that no server is defined. */
  #because: HawserError | undefined;
  #current: Established | undefined;
  #connectedAt = 0;
  /** The server has announced its end. */
  #isServerEnding = false;
  #round: Round | undefined;
  /** What `reaches` tries. */
  #trying: { readonly controller: AbortController; readonly ended: Promise<void> } | undefined;
  /** Attempts that failed, in a row. */
  #failures = 0;
  /** Connections that ended soon, in a row. */
  #shortLives = 0;
  /** Why there is no connection. */
  #why: HawserError | undefined;
  /** The failure that was logged last: the same one again is not logged as a warning. */
  #logged: string | undefined;
  /** Since when there is none. */
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

  /** The options of the last `configure`, with their secrets; undefined if no server is defined. */
  get options(): CompleteNatsServerOptions | undefined {
    return this.#options;
  }

  /** The live connection; undefined if there is none now. Ask for it each time: it changes. */
  get connection(): NatsConnection | undefined {
    return this.#current?.connection;
  }

  /** The server of the live connection; undefined if there is none now. */
  get server(): NatsAddress | undefined {
    return this.#current?.server;
  }

  /** Why there is no connection; undefined if there is one, or the first attempt has not ended. */
  get failure(): HawserError | undefined {
    return this.#why === undefined ? undefined : again(this.#why);
  }

  /**
   * Says that something is under way on the connection: should it be left for another one, it closes only after that,
   * or after `natsDrainMs`, or `usesLastMs` if that is longer.
   *
   * @returns what says that it has ended; to be called once
   */
  use(connection: NatsConnection): () => void {
    return this.#draining.use(connection);
  }

  /**
   * Whether the server has taken all that was published on the connection until now, which may have been left meanwhile.
   * False where that cannot be known, as the connection was lost. Asks the server; does not reject.
   */
  hasTaken(connection: NatsConnection): Promise<boolean> {
    return this.#draining.hasTaken(connection);
  }

  /** @returns what takes the listener away */
  on<Name extends keyof NatsConnectorEvents>(
    name: Name,
    listener: (...event: NatsConnectorEvents[Name]) => void,
  ): () => void {
    return this.#listeners.add(name, listener);
  }

  /**
   * Takes the options; undefined if no server is defined. If they describe another connection than the present ones, it
   * is left and another one is made with them. Returns at once; `ready` tells the outcome.
   *
   * @param because why there are none, if it is not that no server is defined: callers are told
   */
  configure(options: CompleteNatsServerOptions | undefined, because?: HawserError): void {
    if (this.#stopped !== undefined) return;
    this.#because = because;
    const isSame = sameConnection(this.#options, options);
    this.#options = options === undefined ? undefined : Object.freeze({ ...options });
    if (isSame) return;
    this.#leave();
    if (options === undefined) {
      this.#endRound();
      this.#release(notConfigured(because));
    } else {
      this.#begin(0);
    }
  }

  /**
   * Connects anew with all files read anew, though nothing has changed. The old connection serves until the new one is
   * up, and if that fails, further on.
   *
   * @throws HawserError of the attempt, or `nats_not_configured`; the reason of the signal
   */
  async reconnect(signal?: AbortSignal): Promise<void> {
    this.#checkConfigured();
    signal?.throwIfAborted();
    const outcome = this.#outcomes.next(signal);
    this.#begin(0);
    await outcome;
  }

  /**
   * Whether the server takes a connection with the options of the last `configure`: tries it, and leaves it at once.
   *
   * @throws HawserError `nats_not_configured`, or why it does not
   */
  async reaches(server: NatsAddress): Promise<void> {
    this.#checkConfigured();
    const controller = new AbortController();
    const trying = this.#connect(this.#options!, [server], controller.signal).then(({ connection }) =>
      connection.close(),
    );
    const ended = trying.catch(() => undefined);
    this.#trying = { controller, ended };
    await trying;
  }

  /**
   * Connects to that server of the options, as `reconnect` does, unless the connector has no connection, or is about to have
   * another one: then it does nothing.
   *
   * @throws HawserError of the attempt: the old connection goes on
   */
  async move(server: NatsAddress): Promise<void> {
    if (this.#current === undefined || this.#round !== undefined || this.#stopped !== undefined) return;
    const outcome = this.#outcomes.next();
    this.#begin(0, server);
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
    if (this.#round?.isPausing && this.#why !== undefined && this.#failures > 0) throw again(this.#why);
    await this.#outcomes.next(signal);
  }

  /**
   * The live connection. Where there is none, waits until `natsWaitMs` after it was lost (or after the options came).
   *
   * @throws HawserError `nats_not_configured`, or why the last attempt failed: `nats_unavailable`, `nats_unauthorized`,
   * `secret_file`; the reason of the signal
   */
  async connected(signal?: AbortSignal): Promise<NatsConnection> {
    for (;;) {
      if (this.#current !== undefined) return this.#current.connection;
      this.#checkConfigured();
      // Looked at anew after each wait: a timer may end a little early, and the next call is not to wait for the rest.
      const remainingMs = this.#downSince + this.#natsWaitMs - performance.now();
      if (remainingMs < 1) break;
      await this.#arrivals.next(signal, remainingMs);
    }
    if (this.#why !== undefined) throw again(this.#why);
    const detail = `Connecting has not ended within ${this.#natsWaitMs} ms.`;
    throw new HawserError("nats_unavailable", "there is no connection to the NATS server yet", { detail });
  }

  /**
   * Sends what was published, and closes. Nothing is left that would keep the process alive.
   *
   * @param limitMs how long the server may take to say that it has all; then the connection is closed all the same
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
    this.#trying?.controller.abort(isStopped());
    this.#leave();
    // First #stopped is assigned: the waiters that are released read it.
    await Promise.resolve();
    this.#release(isStopped());
    await Promise.all([...this.#rounds, this.#trying?.ended, this.#draining.end(limitMs)]);
    this.#rareLog.end();
  }

  #checkConfigured(): void {
    if (this.#stopped !== undefined) throw isStopped();
    if (this.#options === undefined) throw notConfigured(this.#because);
  }

  #release(error: HawserError): void {
    this.#outcomes.settle(error);
    this.#arrivals.settle();
  }

  /** Leaves the present connection, if there is one. */
  #leave(): void {
    const { connection } = this.#current ?? {};
    this.#current = undefined;
    this.#downSince = performance.now();
    this.#why = undefined;
    if (connection !== undefined) this.#draining.drain(connection);
  }

  #endRound(): void {
    this.#round?.controller.abort(new Error("superseded"));
    this.#round = undefined;
  }

  #begin(pauseMs: number, target?: NatsAddress): void {
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
        else this.#arrive(established);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const failure = asHawserError(error);
        if (this.#current !== undefined && !this.#isServerEnding) {
          // The connection that was to be replaced goes on.
          this.#round = undefined;
          this.#fail(failure, {}, "connecting anew to NATS failed; the old connection goes on");
          return;
        }
        this.#failures += 1;
        if (this.#current === undefined) this.#why = failure;
        pauseMs = this.#pauseAfterFailureMs(this.#failures);
        round.isPausing = true;
        this.#fail(failure, { retryMs: Math.round(pauseMs) }, "no connection to NATS");
      }
    }
  }

  #serversOf({ target }: Round, options: CompleteNatsServerOptions): readonly NatsAddress[] {
    const isServed = this.#current !== undefined && !this.#isServerEnding;
    return target !== undefined && isServed ? [target] : this.#choice.order(natsAddresses(options));
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
      onFailed: (server) => this.#choice.failed(server),
      // Without the message: the listener reports what it did with it.
      onDefect: (error) => this.#logger.error({ client: this.#name, err: error }, "handling a message of NATS failed"),
    });
    this.#choice.reached(established.server);
    return established;
  }

  #fail(failure: HawserError, more: object, message: string): void {
    const isNew = this.#logged !== failure.message;
    this.#logged = failure.message;
    const { code, detail } = failure;
    this.#logger[isNew ? "warn" : "debug"]({ client: this.#name, code, detail, ...more }, message);
    // Listeners come last: they may configure the connector anew.
    this.#outcomes.settle(failure);
    this.#listeners.emit("failed", failure);
  }

  #arrive(established: Established): void {
    const { connection, server } = established;
    this.#round = undefined;
    const before = this.#current;
    this.#current = established;
    this.#connectedAt = performance.now();
    this.#isServerEnding = false;
    this.#why = undefined;
    this.#logged = undefined;
    this.#observe(established);
    if (before !== undefined) this.#draining.drain(before.connection);
    this.#logger.info(
      { client: this.#name, server: server.name, serverId: connection.info?.server_id },
      "connected to NATS",
    );
    this.#outcomes.settle();
    this.#arrivals.settle();
    this.#listeners.emit("connected", connection);
  }

  #observe(established: Established): void {
    const client = this.#name;
    const isCurrent = (): boolean => this.#current === established;
    void watchConnection(established, {
      onRefused: (refusal) => {
        this.#rareLog.warn("NATS does not permit it", refusal.message);
        this.#listeners.emit("refused", refusal, established.connection);
      },
      onServerEnding: () => {
        if (!isCurrent() || this.#isServerEnding) return;
        this.#isServerEnding = true;
        this.#choice.failed(established.server);
        this.#logger.info({ client }, "the NATS server announces its end; connecting anew");
        if (this.#round === undefined) this.#begin(0);
      },
      onComplaint: (words) => this.#rareLog.warn("NATS complains", words),
    });
    void established.ended.then((error) => {
      if (!isCurrent()) return;
      this.#choice.failed(established.server);
      this.#lose(error);
    });
  }

  #lose(error: HawserError): void {
    const now = performance.now();
    this.#shortLives = now - this.#connectedAt > natsReconnectMaxMs ? 0 : this.#shortLives + 1;
    this.#current = undefined;
    this.#downSince = now;
    this.#why = error;
    this.#logger.warn({ client: this.#name, code: error.code, detail: error.detail }, "the connection to NATS is lost");
    if (this.#round === undefined) {
      // A server that accepts and then cuts off is not to be asked again and again without a pause.
      const isCutOff = this.#shortLives > 1;
      this.#begin(isCutOff ? this.#pauseAfterFailureMs(this.#shortLives) : natsReconnectMinMs * this.#random());
    }
    this.#listeners.emit("lost", error);
  }

  /** From half of a time to the whole, so that the clients of a server that comes back do not come all at once. */
  #pauseAfterFailureMs(failures: number): number {
    const limits = { minMs: 2 * natsReconnectMinMs, maxMs: natsReconnectMaxMs };
    return backoffMs({ ...limits, jitter: 0.5, random: this.#random }, failures);
  }
}

/** Whatever an attempt threw. */
function asHawserError(error: unknown): HawserError {
  if (error instanceof HawserError) return error;
  return new HawserError("internal", "connecting to NATS failed in a way that was not foreseen", { cause: error });
}

/** There is nothing to connect to. @param because why, if it is not that no server is defined */
function notConfigured(because?: HawserError): HawserError {
  if (because === undefined)
    return new HawserError("nats_not_configured", "no NATS server is defined in this database");
  const { message, detail, remedy } = because;
  return new HawserError("nats_not_configured", message, { detail, remedy, cause: because });
}

/** There will be no connection any more. */
function isStopped(): HawserError {
  const detail = "Hawser closes its connections.";
  return new HawserError("nats_unavailable", "there is no connection to the NATS server: it is being closed", {
    detail,
  });
}

/** The same error for another caller, with the stack of its own call. */
function again({ code, message, detail, remedy, cause }: HawserError): HawserError {
  return new HawserError(code, message, { detail, remedy, ...(cause === undefined ? {} : { cause }) });
}

/** True if both describe the same connection, whatever their other options are, or are both undefined. */
function sameConnection(
  one: CompleteNatsServerOptions | undefined,
  other: CompleteNatsServerOptions | undefined,
): boolean {
  if (one === undefined || other === undefined) return one === other;
  return connectionOptions.every((name) => one[name] === other[name]);
}

/** Promises that are settled together, each of which its owner can leave by a signal or after a time. */
class Waiters {
  readonly #waiting = new Set<(error: Error | undefined) => void>();

  /**
   * Resolves or rejects with the next `settle`. Resolves also after `timeoutMs`, where that is given.
   *
   * @throws the reason of the signal, once it is aborted
   */
  next(signal?: AbortSignal, timeoutMs?: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const settle = (error: Error | undefined): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        this.#waiting.delete(settle);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = (): void => settle(signal!.reason);
      const timer = timeoutMs === undefined ? undefined : setTimeout(() => settle(undefined), timeoutMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.add(settle);
    });
  }

  /** Resolves everyone who waits now, or rejects them with the error. */
  settle(error?: Error): void {
    for (const settle of [...this.#waiting]) settle(error);
  }
}
