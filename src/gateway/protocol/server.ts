/**
 * The server: who may connect, how many, and how it ends.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { type GatewayConstants, gatewayConstants, type ServeSettings } from "../../../generated/ts/settings/nats.js";
import { errorTable, HawserError } from "../../errors/index.js";
import { RareLog } from "../../runtime/index.js";
import { PendingHandshakes } from "../../transport/index.js";
import type { ErrorAnswer, GatewayClient } from "./answer.js";
import {
  ClientConnection,
  type ClientConnectionOptions,
  type ConnectionEvents,
  stoppingState,
} from "./client-connection.js";
import type { ConnectionRules } from "./connection-protocol.js";
import { scramVerifierOf } from "./scram.js";

const serverNonceBytes = 18;

/** Connections that may be authenticating even where few sessions are allowed. */
const leastPending = 64;

const leaving: ErrorAnswer = {
  kind: "error",
  sqlstate: stoppingState,
  message: "the gateway is being stopped; the call was not carried out",
  hint: "Try again: the next call connects anew.",
};
const abandoned: ErrorAnswer = {
  kind: "error",
  sqlstate: errorTable.outcome_unknown.sqlstate,
  message: "the gateway was stopped while the call was under way: it may have been carried out or not",
  hint: errorTable.outcome_unknown.remedy,
};

/**
 * Options of {@link PostgresServer.listen}. As many connections as there may be sessions may be in the middle of
 * authenticating beside them.
 */
export interface PostgresServerOptions
  extends ClientConnectionOptions,
    Pick<ServeSettings, "maxSessions" | "maxRequestBytes">,
    Pick<GatewayConstants, "maxStartupBytes"> {
  /** Host name or IP address to listen on. */
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** The one user. */
  readonly user: string;
  /** The one database. */
  readonly database: string;
  /** Printable ASCII. */
  readonly password: string;
  /** The client has gone, or was sent away; a call of the session may still be under way. */
  onClientEnd?(client: GatewayClient): void;
}

/** A server that speaks as much of the Postgres protocol as the generated SQL functions need. */
export class PostgresServer {
  readonly #pending = new PendingHandshakes<ClientConnection>();
  readonly #sessions = new Set<ClientConnection>();
  #lastId = 0;
  #stopped: Promise<void> | undefined;
  #onEmpty = (): void => {};
  readonly #events: ConnectionEvents = {
    onProved: (connection) => this.#admit(connection),
    onClosed: (connection) => this.#forget(connection),
    onWarning: (message, sqlstate, details) => this.#rareLog.warn(message, sqlstate, details),
  };

  readonly #rareLog: RareLog;

  /** Where it listens, with the real port. */
  readonly address: { readonly host: string; readonly port: number };

  readonly #options: PostgresServerOptions;
  readonly #rules: ConnectionRules;
  readonly #server: Server;

  private constructor(options: PostgresServerOptions, rules: ConnectionRules, server: Server) {
    this.#options = options;
    this.#rules = rules;
    this.#server = server;
    const { address, port } = server.address() as AddressInfo;
    this.address = { host: address, port };
    this.#rareLog = new RareLog(options.logger, "gateway");
    server.on("connection", (socket) => this.#accept(socket));
    // Out of file descriptors, for example. Listening goes on.
    server.on("error", (err) => options.logger.error({ err }, "a connection from Postgres could not be accepted"));
  }

  /**
   * Binds the address and accepts connections.
   *
   * @param signal ends the attempt
   * @throws HawserError (as a rejection) `bind_failed` if the address is unknown or in use, `invalid_argument` for a
   * password that is not printable ASCII
   */
  static async listen(options: PostgresServerOptions, signal?: AbortSignal): Promise<PostgresServer> {
    signal?.throwIfAborted();
    const { host, port, password, tls } = options;
    const rules: ConnectionRules = {
      ...options,
      verifier: await scramVerifierOf(password, gatewayConstants.scramIterations),
      mockSecret: randomBytes(32),
      serverNonce: () => randomBytes(serverNonceBytes).toString("base64"),
      tls: tls !== undefined,
    };
    const server = createServer({
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: gatewayConstants.sessionKeepaliveMs,
    });
    try {
      signal?.throwIfAborted();
      server.listen({ host, port });
      // Rejects with what the server emits as an error.
      await once(server, "listening");
    } catch (cause) {
      if (signal?.aborted) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new HawserError("bind_failed", `the gateway cannot listen on ${host}:${port}: ${why}`, { cause });
    }
    return new PostgresServer(options, rules, server);
  }

  /** Authenticated sessions that are open. */
  get sessionCount(): number {
    return this.#sessions.size;
  }

  /**
   * Ends everything. New connections are refused at once, sessions without a call under way are told `57P01`, the others
   * when their call has been answered; after `deadlineMs` those are told that the outcome is unknown. Resolves when the
   * last connection is closed. Asked twice it is the first that counts.
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

  /** Without a message: until the client had read it, there would be no room. */
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
        // The one at which libpq goes on to the next gateway.
        sqlstate: "57P03",
        message: `the gateway has ${maxSessions} sessions already, as many as --tune maxSessions allows`,
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
    each((connection) => connection.leave(leaving));
    if (this.#pending.size === 0 && this.#sessions.size === 0) return;
    const abandonment = setTimeout(() => each((connection) => connection.abandon(abandoned)), deadlineMs);
    // Those that do not read what they are told.
    const destruction = setTimeout(
      () => each((connection) => connection.destroy()),
      deadlineMs + gatewayConstants.goodbyeMs,
    );
    await empty;
    clearTimeout(abandonment);
    clearTimeout(destruction);
  }
}
