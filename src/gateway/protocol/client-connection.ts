/**
 * A client connection on its socket: carries out what the protocol decides, and ends what takes too long.
 */
import type { Socket } from "node:net";
import type { SecureContext } from "node:tls";
import { TLSSocket } from "node:tls";
import { type GatewayConstants, gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import type { LogDetails, Logger } from "../../runtime/index.js";
import { type Answer, type ErrorAnswer, type GatewayClient, isDefect } from "./answer.js";
import { type ConnectionEffects, ConnectionProtocol, type ConnectionRules } from "./connection-protocol.js";
import { otherChannelState } from "./login.js";

/** What libpq of Postgres 17 and later says it speaks within TLS. */
const alpnProtocol = "postgresql";

/**
 * The server lingers also when it stops: a call that is on its way now gets its answer, and not a reset that leaves open
 * whether it was carried out. And a session that does not call is left open for `quietMs`, so that most calls find out
 * by an answer, without connecting twice.
 */
const { lingerMs, hurriedLingerMs, quietMs } = gatewayConstants;

/** Refusals that say that something is wrong: password, database, number of sessions, who ends TLS. */
const worthAWarning: ReadonlySet<string> = new Set(["28P01", "3D000", "57P03", otherChannelState]);

/** The SQLSTATE of a session that ends because the server does: `admin_shutdown`. */
export const stoppingState = "57P01";

/** Where the certificate and its key come from. Asked for each new connection; `TlsCredentials` of the transport is one. */
export interface TlsSource {
  readonly current: { readonly context: SecureContext };
}

/** What a client connection needs to know of its server. */
export interface ClientConnectionOptions extends Pick<GatewayConstants, "startupTimeoutMs"> {
  /** Default: no TLS; clients that ask for it are told so. */
  readonly tls?: TlsSource | undefined;
  readonly logger: Logger;
  /**
   * Carries a call out. An answer that is no promise is written at once. What is thrown or rejected is answered with: a
   * `HawserError` as what it is, anything else as `XX000` and logged. Asked one call at a time for each session.
   *
   * @param query the text of the simple query without the NUL at its end: a view, valid until the answer is there
   */
  answer(query: Uint8Array, client: GatewayClient): Answer | Promise<Answer>;
}

/** Is called as the connection gets on. */
export interface ConnectionEvents {
  /** The client has proved itself. @returns why it cannot have a session all the same */
  onProved(connection: ClientConnection): ErrorAnswer | undefined;
  /** The socket is closed, or as good as. May be told again. */
  onClosed(connection: ClientConnection): void;
  /** Something is wrong that a person should know of; strangers may cause it as often as they like. */
  onWarning(message: string, sqlstate: string, details: LogDetails): void;
}

/** A client connection: its socket, its timers, and the protocol on it. */
export class ClientConnection implements GatewayClient, ConnectionEffects {
  readonly remoteAddress: string;
  /** The client's IP address; empty if it has gone already. */
  readonly remoteHost: string;
  applicationName = "";
  /** 0 before authentication. */
  id = 0;

  readonly #protocol: ConnectionProtocol;
  #stream: Socket;
  #startupTimer: NodeJS.Timeout | undefined;
  #lingerTimer: NodeJS.Timeout | undefined;
  #partTimer: NodeJS.Timeout | undefined;
  #hurries = false;

  readonly #options: ClientConnectionOptions;
  readonly #events: ConnectionEvents;

  /** @param socket belongs to this object from now on */
  constructor(options: ClientConnectionOptions, rules: ConnectionRules, socket: Socket, events: ConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.remoteHost = socket.remoteAddress ?? "";
    this.remoteAddress = `${this.remoteHost || "unknown"}:${socket.remotePort ?? 0}`;
    this.#protocol = new ConnectionProtocol(rules, this);
    this.#stream = socket;
    this.#startupTimer = setTimeout(() => this.#timeOut(), options.startupTimeoutMs);
    // Before the stream's own close: so a socket that TLS was put upon is seen to go, too.
    socket.once("close", () => this.#onClosed());
    this.#attach(socket);
  }

  get isOpen(): boolean {
    return !this.#protocol.isOver;
  }

  get isAnswering(): boolean {
    return this.#protocol.isAnswering;
  }

  /** Ends it with `reason` as the answer to its next call, or without a word when none has come for a moment. */
  leave(reason: ErrorAnswer): void {
    this.#hurries = true;
    this.#protocol.leave(reason);
    if (this.isOpen) this.#partTimer = setInterval(() => this.#protocol.part(), quietMs);
  }

  /** Ends it now: a call under way with `reason`. */
  abandon(reason: ErrorAnswer): void {
    if (this.isAnswering) this.#protocol.fail(reason);
    else this.#protocol.part();
  }

  write(bytes: Uint8Array): boolean {
    this.#partTimer?.refresh();
    return this.#stream.write(bytes);
  }

  end(): void {
    const stream = this.#stream;
    clearInterval(this.#partTimer);
    this.#stopStartupTimer();
    this.#lingerTimer ??= setTimeout(this.destroy, this.#hurries ? hurriedLingerMs : lingerMs);
    stream.end();
    // Read to the end: closing with unread bytes would take from the client what it has not read yet.
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

  admit(applicationName: string): ErrorAnswer | undefined {
    this.applicationName = applicationName;
    const refusal = this.#events.onProved(this);
    if (refusal === undefined) this.#stopStartupTimer();
    return refusal;
  }

  answer(query: Uint8Array): Answer | Promise<Answer> {
    return this.#options.answer(query, this);
  }

  answerFailed(error: unknown): void {
    if (isDefect(error)) this.#options.logger.error({ err: error, session: this.id }, "a call failed unexpectedly");
  }

  refused({ sqlstate, message }: ErrorAnswer): void {
    const { remoteAddress, id } = this;
    const details = { remoteAddress, ...(id === 0 ? {} : { session: id }) };
    const line = `a connection from Postgres was ended: ${message}`;
    // Refusals of strangers would fill the log, and the operator who stops the server knows that sessions end.
    const isWarning = worthAWarning.has(sqlstate) || (id !== 0 && sqlstate !== stoppingState);
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
    // A client that writes no more reads no more, either: libpq closes both ways at once.
    stream.on("end", () => {
      protocol.closed();
      this.end();
    });
    // "close" follows, and nobody is there to be told.
    stream.on("error", () => {});
  }

  /** The certificate is the one that this connection was made with, also if it has been renewed since. */
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

  #stopStartupTimer(): void {
    clearTimeout(this.#startupTimer);
    this.#startupTimer = undefined;
  }

  #onClosed(): void {
    this.#stopStartupTimer();
    clearTimeout(this.#lingerTimer);
    clearInterval(this.#partTimer);
    this.#protocol.closed();
    this.#events.onClosed(this);
  }
}
