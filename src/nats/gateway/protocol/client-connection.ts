/**
 * A client connection with its socket: performs the effects of the protocol, and enforces time limits.
 */
import type { Socket } from "node:net";
import type { SecureContext } from "node:tls";
import { TLSSocket } from "node:tls";
import { errorTable } from "../../../foundation/errors/index.js";
import type { LogDetails, Logger } from "../../../foundation/runtime/index.js";
import { type Answer, type ErrorAnswer, type GatewayClient, isDefect } from "./answer.js";
import { type ConnectionEffects, ConnectionProtocol, type ConnectionRules } from "./connection-protocol.js";
import { otherChannelState } from "./login.js";

/** ALPN protocol of libpq since Postgres 17. */
const alpnProtocol = "postgresql";

/** Time for which a refused client may read the reason. */
const lingerMs = 1_000;
/**
 * The same when the gateway stops: a call in transit gets its answer instead of a reset, after which its outcome would
 * be unknown.
 */
const hurriedLingerMs = 100;
/**
 * Time for which a stop of the gateway leaves a session open that does not call, so that most calls get the error as an
 * answer, without connecting twice.
 */
const quietMs = 100;

/** SQLSTATEs that indicate a problem for the operator: password, database, number of sessions, a TLS proxy. */
const warningStates: ReadonlySet<string> = new Set(["28P01", "3D000", "57P03", otherChannelState]);

/** SQLSTATE of a session that ends because the server shuts down: `admin_shutdown`. */
export const stoppingState = "57P01";

/** Source of certificate and key. Read for each new connection; `TlsCredentials` of the transport implements it. */
export interface TlsSource {
  readonly current: { readonly context: SecureContext };
}

/** Options of client connections. */
export interface ClientConnectionOptions {
  /** Time limit of a login. */
  readonly startupTimeoutMs: number;
  /**
   * Certificate and key. Default: no TLS; a client that requests TLS gets the answer that the server does not support
   * it.
   */
  readonly tls?: TlsSource | undefined;
  readonly logger: Logger;
  /**
   * Carries out a call. A synchronous answer is written at once. Errors and rejections become error answers: a
   * `HawserError` with its code, any other error as `XX000`, which is also logged. Called for one call at a time per
   * session.
   *
   * @param query text of the simple query without its final NUL: a view, valid until the answer
   */
  answer(query: Uint8Array, client: GatewayClient): Answer | Promise<Answer>;
}

/** Events of a {@link ClientConnection}. */
export interface ConnectionEvents {
  /**
   * Called when the client is authenticated.
   *
   * @returns error that ends the connection; undefined to start the session
   */
  onAuthenticated(connection: ClientConnection): ErrorAnswer | undefined;
  /** The socket is closed or destroyed. May be called again. */
  onClosed(connection: ClientConnection): void;
  /**
   * Reports a problem for the operator. Unauthenticated clients can cause such problems in large numbers, so the
   * receiver must limit its reports.
   */
  onWarning(message: string, sqlstate: string, details: LogDetails): void;
}

/** A client connection: socket, timers and protocol. */
export class ClientConnection implements GatewayClient, ConnectionEffects {
  readonly remoteAddress: string;
  /** IP address of the client; empty if it has already disconnected. */
  readonly remoteHost: string;
  /** 0 before authentication. */
  id = 0;

  readonly #protocol: ConnectionProtocol;
  #stream: Socket;
  readonly #startupTimer: NodeJS.Timeout;
  #lingerTimer: NodeJS.Timeout | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #isShuttingDown = false;

  readonly #options: ClientConnectionOptions;
  readonly #events: ConnectionEvents;

  /** @param socket owned by this object from now on */
  constructor(options: ClientConnectionOptions, rules: ConnectionRules, socket: Socket, events: ConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.remoteHost = socket.remoteAddress ?? "";
    this.remoteAddress = `${this.remoteHost || "unknown"}:${socket.remotePort ?? 0}`;
    this.#protocol = new ConnectionProtocol(rules, this);
    this.#stream = socket;
    this.#startupTimer = setTimeout(() => this.#timeOut(), options.startupTimeoutMs);
    // The listener is on the plain socket, so that its close is noticed even under TLS.
    socket.once("close", () => this.#onClosed());
    this.#attach(socket);
  }

  get isOpen(): boolean {
    return !this.#protocol.isOver;
  }

  get isAnswering(): boolean {
    return this.#protocol.isAnswering;
  }

  /** Ends the session: with `reason` as the answer to its next call, or after a short time without one. */
  endGracefully(reason: ErrorAnswer): void {
    this.#isShuttingDown = true;
    this.#protocol.endAfterCall(reason);
    if (this.isOpen) this.#idleTimer = setInterval(() => this.#protocol.endIfIdle(), quietMs);
  }

  /** Ends the session now; a running call is answered with `reason`. */
  abandon(reason: ErrorAnswer): void {
    if (this.isAnswering) this.#protocol.fail(reason);
    else this.#protocol.endIfIdle();
  }

  write(bytes: Uint8Array): boolean {
    this.#idleTimer?.refresh();
    return this.#stream.write(bytes);
  }

  end(): void {
    const stream = this.#stream;
    clearInterval(this.#idleTimer);
    clearTimeout(this.#startupTimer);
    this.#lingerTimer ??= setTimeout(this.destroy, this.#isShuttingDown ? hurriedLingerMs : lingerMs);
    stream.end();
    // Unread bytes at close would cause a reset, and the client could lose data that it has not read yet.
    stream.resume();
  }

  close(): void {
    this.destroy();
  }

  startTls(): void {
    const socket = this.#stream;
    socket.removeAllListeners("data");
    socket.removeAllListeners("drain");
    socket.removeAllListeners("end");
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: this.#options.tls!.current.context,
      ALPNProtocols: [alpnProtocol],
    });
    this.#stream = secure;
    secure.once("secure", () => this.#secured(secure));
    secure.once("close", () => this.#onClosed());
    this.#attach(secure);
  }

  setReading(reading: boolean): void {
    if (reading) this.#stream.resume();
    else this.#stream.pause();
  }

  admit(): ErrorAnswer | undefined {
    const refusal = this.#events.onAuthenticated(this);
    if (refusal === undefined) clearTimeout(this.#startupTimer);
    return refusal;
  }

  answer(query: Uint8Array): Answer | Promise<Answer> {
    return this.#options.answer(query, this);
  }

  answerFailed(error: unknown): void {
    if (isDefect(error))
      this.#options.logger.error({ err: error, session: this.id }, "a call failed with an internal error");
  }

  refused({ sqlstate, message }: ErrorAnswer): void {
    const { remoteAddress, id } = this;
    const details = { remoteAddress, ...(id === 0 ? {} : { session: id }) };
    const line = `a connection from Postgres was ended: ${message}`;
    // Warnings about unauthenticated clients would fill the log, and an operator who stops the server knows that
    // sessions end.
    const isWarning = warningStates.has(sqlstate) || (id !== 0 && sqlstate !== stoppingState);
    if (isWarning) this.#events.onWarning(line, sqlstate, details);
    else this.#options.logger.debug({ ...details, sqlstate }, line);
  }

  /** Closes at once. */
  readonly destroy = (): void => {
    this.#stream.destroy();
    this.#onClosed();
  };

  #attach(stream: Socket): void {
    const protocol = this.#protocol;
    stream.on("data", (chunk: Buffer) =>
      protocol.receive(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)),
    );
    stream.on("drain", () => protocol.drained());
    // A client that has ended its side does not read any more: libpq closes both directions at once.
    stream.on("end", () => {
      protocol.closed();
      this.end();
    });
    // The event "close" follows, and nobody can receive a report of the error.
    stream.on("error", () => {});
  }

  /** Uses the certificate of this connection, even if it has been renewed since. */
  #secured(stream: TLSSocket): void {
    const certificate = stream.getX509Certificate();
    if (certificate === undefined) this.destroy();
    else this.#protocol.secured(certificate.raw);
  }

  #timeOut(): void {
    const { startupTimeoutMs } = this.#options;
    const message = `the connection did not authenticate within ${startupTimeoutMs} ms`;
    this.#protocol.fail({ kind: "error", sqlstate: errorTable.connection_lost.sqlstate, message });
  }

  #onClosed(): void {
    clearTimeout(this.#startupTimer);
    clearTimeout(this.#lingerTimer);
    clearInterval(this.#idleTimer);
    this.#protocol.closed();
    this.#events.onClosed(this);
  }
}
