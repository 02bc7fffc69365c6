/**
 * Monitoring port of `hawser serve`: a small HTTP server for scrapers and probes. It requires no password, and limits
 * clients that misbehave.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { monitorPage, type PageSources } from "../../../foundation/monitor/index.js";
import { listenAt } from "../../../jobs-and-peers/transport/index.js";
import type { Address } from "../../../jobs-and-peers/wire/index.js";

/** Limits of the monitoring port. */
const monitorLimits = {
  /** Maximum number of connections. */
  maxConnections: 64,
  /** The largest head of a request. */
  maxHeaderBytes: 4 * 1024,
  /** Time limit for the head of a request. */
  headersTimeoutMs: 5_000,
  /** Time limit for a request to arrive, and for its answer to be taken. */
  requestTimeoutMs: 10_000,
  /** Time for which a connection without a request is kept. */
  keepAliveMs: 5_000,
  /** Time for which the end waits for connections. */
  stopTimeoutMs: 1_000,
  /** Interval at which late clients are searched for. */
  lookIntervalMs: 500,
};

export type MonitorLimits = Readonly<typeof monitorLimits>;

/** Contents and address of the monitoring port. */
export interface MonitorOptions extends PageSources {
  /** Address to listen at; port 0 selects a free one. */
  readonly listen: Address;
  /** Limits other than `monitorLimits`. */
  readonly limits?: Partial<MonitorLimits> | undefined;
}

/** HTTP server of the monitoring port. */
export class Monitor implements AsyncDisposable {
  /** Listening address with the real port. */
  readonly address: Address;
  readonly #sources: PageSources;
  readonly #limits: MonitorLimits;
  readonly #server: Server;
  #stopped: Promise<void> | undefined;

  private constructor(options: MonitorOptions, limits: MonitorLimits, server: Server, address: Address) {
    this.address = address;
    this.#sources = options;
    this.#limits = limits;
    this.#server = server;
    server.on("request", (request, response) => void this.#answer(request, response));
    server.on("drop", () => {
      const message = `the monitoring port has ${limits.maxConnections} connections already; one more was closed`;
      options.logger.debug({}, message);
    });
    // An example is a lack of file descriptors. The server continues to listen.
    server.on("error", (err) => options.logger.error({ err }, "the monitoring port could not accept a connection"));
  }

  /**
   * Binds the address and starts to answer.
   *
   * @throws HawserError (as a rejection) `bind_failed` if the address is unknown or in use; the reason of the signal
   */
  static async start(options: MonitorOptions, signal?: AbortSignal): Promise<Monitor> {
    signal?.throwIfAborted();
    const limits: MonitorLimits = { ...monitorLimits, ...options.limits };
    const server = createServer({
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: limits.lookIntervalMs,
    });
    server.maxConnections = limits.maxConnections;
    const address = await listenAt(server, options.listen, "the monitoring port cannot be opened at");
    const monitor = new Monitor(options, limits, server, address);
    if (signal?.aborted) await monitor.stop();
    signal?.throwIfAborted();
    return monitor;
  }

  /**
   * Stops listening, closes idle connections at once and the others after their answer, at the latest after
   * `stopTimeoutMs`. A further call waits for the first.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    const deadline = setTimeout(() => this.#server.closeAllConnections(), this.#limits.stopTimeoutMs);
    await closed;
    clearTimeout(deadline);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    // Node.js has no time limit for a client that does not read. The timer is unreferenced, because `close` is not
    // emitted for an answer that still waits behind an earlier one.
    const late = setTimeout(() => socket.destroy(), this.#limits.requestTimeoutMs).unref();
    response.once("close", () => clearTimeout(late));
    const { method = "", url = "" } = request;
    const path = url.split("?", 1)[0]!;
    const { status, headers, body } = await monitorPage(method, path, this.#sources, "`hawser serve`");
    response.writeHead(status, {
      ...headers,
      "Content-Length": Buffer.byteLength(body),
      // The body is not read, so the connection is closed after the answer.
      ...((hasBody(request) || this.#stopped !== undefined) && { Connection: "close" }),
    });
    response.end(body);
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}
