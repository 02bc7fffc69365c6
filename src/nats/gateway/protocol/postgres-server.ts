/**
 * Postgres protocol server: admission, limits and shutdown of client connections.
 */

import { randomBytes } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import type { ServeSettings } from "../../../../generated/ts/settings/nats.js";
import { errorTable } from "../../../foundation/errors/index.js";
import { RareLog } from "../../../foundation/runtime/index.js";
import { listenAt, PendingHandshakes } from "../../../jobs-and-peers/transport/index.js";
import type { Address } from "../../../jobs-and-peers/wire/index.js";
import type { ErrorAnswer, GatewayClient } from "./answer.js";
import {
  ClientConnection,
  type ClientConnectionOptions,
  type ConnectionEvents,
  stoppingState,
} from "./client-connection.js";
import type { ConnectionRules } from "./connection-protocol.js";
import type { LoginRules } from "./login.js";
import { scramVerifierOf } from "./scram.js";

/** Iterations of SCRAM-SHA-256. */
const scramIterations = 4_096;
/** Time for which a session may be idle before its connection is probed. */
const sessionKeepaliveMs = 15_000;
/** After the deadline of a stop: how long a client may take to read how its call has ended. */
const goodbyeMs = 250;

const serverNonceBytes = 18;

/** Minimum of connections that may be logging in at a time. */
const leastPending = 64;

const shutdownError: ErrorAnswer = {
  kind: "error",
  sqlstate: stoppingState,
  message: "the gateway is shutting down; the call was not carried out",
  hint: "Try again; the next call makes a new connection.",
};
const abandonedError: ErrorAnswer = {
  kind: "error",
  sqlstate: errorTable.outcome_unknown.sqlstate,
  message: "the gateway was shut down while the call was running; it may or may not have been carried out",
  hint: errorTable.outcome_unknown.remedy,
};

/**
 * Options of {@link PostgresServer.listen}. Besides `maxSessions` sessions, the same number of connections may be
 * logging in.
 */
export interface PostgresServerOptions
  extends ClientConnectionOptions,
    Pick<ServeSettings, "maxSessions" | "maxRequestBytes">,
    Pick<LoginRules, "maxStartupBytes"> {
  /** Host name or IP address to listen on. */
  readonly host: string;
  /** 0 for a free port. */
  readonly port: number;
  /** The only user. */
  readonly user: string;
  /** The only database. */
  readonly database: string;
  /** Printable ASCII. */
  readonly password: string;
  /** Called when a client has disconnected or was disconnected; a call of its session may still be running. */
  onClientEnd?(client: GatewayClient): void;
}

/** Server for the subset of the Postgres protocol that the generated SQL functions need. */
export class PostgresServer {
  readonly #pending = new PendingHandshakes<ClientConnection>();
  readonly #sessions = new Set<ClientConnection>();
  #lastId = 0;
  #stopped: Promise<void> | undefined;
  #onEmpty = (): void => {};
  readonly #events: ConnectionEvents = {
    onAuthenticated: (connection) => this.#admit(connection),
    onClosed: (connection) => this.#forget(connection),
    onWarning: (message, sqlstate, details) => this.#rareLog.warn(message, sqlstate, details),
  };

  readonly #rareLog: RareLog;

  /** Listen address, with the actual port. */
  readonly address: Address;

  readonly #options: PostgresServerOptions;
  readonly #rules: ConnectionRules;
  readonly #server: Server;

  private constructor(options: PostgresServerOptions, rules: ConnectionRules, server: Server, address: Address) {
    this.#options = options;
    this.#rules = rules;
    this.#server = server;
    this.address = address;
    this.#rareLog = new RareLog(options.logger, "gateway");
    server.on("connection", (socket) => this.#accept(socket));
    // Emitted, for example, if no file descriptor is free. The server continues to listen.
    server.on("error", (err) => options.logger.error({ err }, "a connection from Postgres could not be accepted"));
  }

  /**
   * Binds the address and accepts connections.
   *
   * @param signal aborts the attempt
   * @throws HawserError (as a rejection) `bind_failed` if the address is unknown or in use, `invalid_argument` for a
   * password that is not printable ASCII
   */
  static async listen(options: PostgresServerOptions, signal?: AbortSignal): Promise<PostgresServer> {
    signal?.throwIfAborted();
    const { host, port, password, tls } = options;
    const rules: ConnectionRules = {
      ...options,
      verifier: await scramVerifierOf(password, scramIterations),
      mockSecret: randomBytes(32),
      serverNonce: () => randomBytes(serverNonceBytes).toString("base64"),
      tls: tls !== undefined,
    };
    const server = createServer({
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: sessionKeepaliveMs,
    });
    signal?.throwIfAborted();
    const address = await listenAt(server, { host, port }, "the gateway cannot listen on");
    return new PostgresServer(options, rules, server, address);
  }

  /** Number of authenticated sessions. */
  get sessionCount(): number {
    return this.#sessions.size;
  }

  /**
   * Ends all connections. New connections are refused at once. Sessions without a running call get `57P01`; the others
   * get it when their call is answered. After `deadlineMs`, remaining calls are answered with an unknown outcome.
   * Resolves when the last connection is closed. Further calls return the promise of the first.
   */
  stop({ deadlineMs }: { readonly deadlineMs: number }): Promise<void> {
    this.#stopped ??= this.#end(deadlineMs).finally(() => this.#rareLog.end());
    return this.#stopped;
  }

  #accept(socket: Socket): void {
    if (this.#stopped !== undefined) {
      socket.destroy();
      return;
    }
    if (this.#pending.size >= Math.max(this.#options.maxSessions, leastPending))
      this.#displace(this.#pending.oldestOfBusiestOrigin!);
    const connection = new ClientConnection(this.#options, this.#rules, socket, this.#events);
    this.#pending.add(connection, connection.remoteHost);
  }

  /**
   * Closes the oldest pending login. No error is sent, because the connection would count until the client has read the
   * error.
   */
  #displace(oldest: ClientConnection): void {
    const { remoteAddress } = oldest;
    const message = `${this.#pending.size} connections were authenticating, and a newer one took the place of this one`;
    this.#options.logger.debug({ remoteAddress }, message);
    oldest.destroy();
  }

  #admit(connection: ClientConnection): ErrorAnswer | undefined {
    const { maxSessions } = this.#options;
    if (this.#sessions.size >= maxSessions) {
      return {
        kind: "error",
        // At this SQLSTATE, libpq tries the next gateway.
        sqlstate: "57P03",
        message: `the gateway has ${maxSessions} sessions, the maximum that --tune maxSessions allows`,
        hint: "Close database sessions that use it, or start `hawser serve` with a greater --tune maxSessions.",
      };
    }
    this.#pending.delete(connection, connection.remoteHost);
    this.#sessions.add(connection);
    connection.id = ++this.#lastId;
    return undefined;
  }

  #forget(connection: ClientConnection): void {
    this.#pending.delete(connection, connection.remoteHost);
    if (this.#sessions.delete(connection)) this.#options.onClientEnd?.(connection);
    if (this.#sessions.size === 0 && this.#pending.size === 0) this.#onEmpty();
  }

  async #end(deadlineMs: number): Promise<void> {
    this.#server.close();
    const empty = new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
    });
    const each = (act: (connection: ClientConnection) => void): void =>
      [...this.#pending, ...this.#sessions].forEach(act);
    each((connection) => connection.endGracefully(shutdownError));
    if (this.#pending.size === 0 && this.#sessions.size === 0) return;
    const abandonment = setTimeout(() => each((connection) => connection.abandon(abandonedError)), deadlineMs);
    // Connections whose clients do not read the error are destroyed.
    const destruction = setTimeout(() => each((connection) => connection.destroy()), deadlineMs + goodbyeMs);
    await empty;
    clearTimeout(abandonment);
    clearTimeout(destruction);
  }
}
