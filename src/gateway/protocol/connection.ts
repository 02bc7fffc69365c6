/**
 * A session on its socket.
 */

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import type { Answer, ErrorAnswer, GatewaySession } from "./answer.js";
import { isDefect } from "./error-answer.js";
import { otherChannelState } from "./login.js";
import type { PostgresServerOptions } from "./options.js";
import { Session, type SessionEffects, type SessionRules } from "./session.js";

/** What libpq of Postgres 17 and later says it speaks within TLS. */
const alpnProtocol = "postgresql";

/**
 * The server lingers also when it stops. dblink does not see that its connection has ended before it is used again; but a
 * call that is on its way now gets its answer, and not a reset that leaves open whether it was carried out. And a session
 * that does not call is left open for `quietMs`, so that most calls find out by an answer.
 */
const { lingerMs, hurriedLingerMs, quietMs } = gatewayConstants;

/** Refusals that say that something is wrong: password, database, number of sessions, who ends TLS. */
const worthAWarning: ReadonlySet<string> = new Set(["28P01", "3D000", "57P03", otherChannelState]);

/** The SQLSTATE of a session that ends because the server does: `admin_shutdown`. */
export const stoppingState = "57P01";

/** Who hears how far a connection has come. */
export interface ConnectionEvents {
  /** The client has proved itself. @returns why it cannot have a session all the same */
  onProved(connection: Connection): ErrorAnswer | undefined;
  /** The socket is closed, or as good as. Told once. */
  onClosed(connection: Connection): void;
  /** Something is wrong that somebody should look at; strangers may cause it as often as they like. */
  onWarning(message: string, sqlstate: string, details: object): void;
}

/** See above. */
export class Connection implements GatewaySession, SessionEffects {
  readonly remoteAddress: string;
  /** The client's IP address; empty if it has gone already. */
  readonly remoteHost: string;
  applicationName = "";
  /** 0 before authentication. */
  id = 0;

  readonly #session: Session;
  #stream: Socket;
  #startupTimer: NodeJS.Timeout | undefined;
  #lingerTimer: NodeJS.Timeout | undefined;
  #partTimer: NodeJS.Timeout | undefined;
  #hurries = false;

  readonly #options: PostgresServerOptions;
  readonly #events: ConnectionEvents;

  /** @param socket belongs to this object from now on */
  constructor(options: PostgresServerOptions, rules: SessionRules, socket: Socket, events: ConnectionEvents) {
    this.#options = options;
    this.#events = events;
    this.remoteHost = socket.remoteAddress ?? "";
    this.remoteAddress = `${this.remoteHost || "unknown"}:${socket.remotePort ?? 0}`;
    this.#session = new Session(rules, this);
    this.#stream = socket;
    this.#startupTimer = setTimeout(() => this.#timeOut(), options.startupTimeoutMs);
    // Before the stream's own close: so a socket that TLS was put upon is seen to go, too.
    socket.once("close", () => this.#onClosed());
    this.#attach(socket);
  }

  get isOpen(): boolean {
    return !this.#session.isOver;
  }

  get isAnswering(): boolean {
    return this.#session.isAnswering;
  }

  /** Ends it with `reason` as the answer to its next call, or without a word when none has come for a moment. */
  leave(reason: ErrorAnswer): void {
    this.#hurries = true;
    this.#session.leave(reason);
    if (this.isOpen) this.#partTimer = setInterval(() => this.#session.part(), quietMs);
  }

  /** Ends it now: a call under way with `reason`. */
  abandon(reason: ErrorAnswer): void {
    if (this.isAnswering) this.#session.fail(reason);
    else this.#session.part();
  }

  write(bytes: Uint8Array | readonly Uint8Array[]): boolean {
    const stream = this.#stream;
    this.#partTimer?.refresh();
    if (bytes instanceof Uint8Array) return stream.write(bytes);
    stream.cork();
    let hasRoom = true;
    for (const piece of bytes) hasRoom = stream.write(piece);
    stream.uncork();
    return hasRoom;
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
    // What strangers do would fill the log, and that a stop ends sessions is known to who stops.
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
    const session = this.#session;
    stream.on("data", (chunk: Buffer) =>
      session.receive(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)),
    );
    stream.on("drain", () => session.drained());
    // A client that writes no more reads no more, either: libpq closes both ways at once.
    stream.on("end", () => {
      session.closed();
      this.end();
    });
    // "close" follows, and nobody is there to be told.
    stream.on("error", () => {});
  }

  /** The certificate is the one that this connection was made with, also if it has been renewed since. */
  #secured(stream: TLSSocket): void {
    const certificate = stream.getX509Certificate();
    if (certificate === undefined) this.destroy();
    else this.#session.secured(certificate.raw);
  }

  #timeOut(): void {
    const { startupTimeoutMs } = this.#options;
    const message = `the connection did not authenticate within ${startupTimeoutMs} ms`;
    this.#session.fail({ kind: "error", sqlstate: errorTable.connection_lost.sqlstate, message });
  }

  #stopStartupTimer(): void {
    clearTimeout(this.#startupTimer);
    this.#startupTimer = undefined;
  }

  #onClosed(): void {
    this.#stopStartupTimer();
    clearTimeout(this.#lingerTimer);
    clearInterval(this.#partTimer);
    this.#session.closed();
    this.#events.onClosed(this);
  }
}
