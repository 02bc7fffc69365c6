/**
 * Monitoring port of `hawser serve`: a small HTTP server for scrapers and probes. It requires no password, and limits
 * clients that misbehave.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type MonitorConstants, monitorConstants } from "../../../generated/ts/settings/nats.js";
import { HawserError } from "../../errors/index.js";
import type { Logger } from "../../runtime/index.js";
import { type Address, formatAddress } from "../../wire/index.js";
import { type HealthCheck, type HealthPage, healthReport } from "./health.js";
import type { ServeMetrics } from "./metrics.js";

/** Contents and address of the monitoring port. */
export interface MonitorOptions extends PageSources {
  /** Address to listen at; port 0 selects a free one. */
  readonly listen: Address;
  /** Limits; by default those of the spec. */
  readonly limits?: Partial<MonitorConstants> | undefined;
}

/** HTTP server of the monitoring port. */
export class Monitor implements AsyncDisposable {
  /** Listening address with the real port. */
  readonly address: Address;
  readonly #sources: PageSources;
  readonly #limits: MonitorConstants;
  readonly #server: Server;
  #stopped: Promise<void> | undefined;

  private constructor(options: MonitorOptions, limits: MonitorConstants, server: Server) {
    const { address: host, port } = server.address() as AddressInfo;
    this.address = { host, port };
    this.#sources = options;
    this.#limits = limits;
    this.#server = server;
    server.on("request", (request, response) => void this.#answer(request, response));
    server.on("drop", () => {
      const message = `the monitoring port has ${limits.maxConnections} connections already; one more was closed`;
      options.logger.debug({}, message);
    });
    // For example, no more file descriptors. The server goes on listening.
    server.on("error", (err) => options.logger.error({ err }, "the monitoring port could not accept a connection"));
  }

  /**
   * Binds the address and starts to answer.
   *
   * @throws HawserError (as a rejection) `bind_failed` if the address is unknown or in use; the reason of the signal
   */
  static async start(options: MonitorOptions, signal?: AbortSignal): Promise<Monitor> {
    signal?.throwIfAborted();
    const limits: MonitorConstants = { ...monitorConstants, ...options.limits };
    const server = createServer({
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveMs,
      connectionsCheckingInterval: limits.lookIntervalMs,
    });
    server.maxConnections = limits.maxConnections;
    const { host, port } = options.listen;
    try {
      server.listen({ host, port });
      // Rejects if the server emits an error.
      await once(server, "listening");
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      const message = `the monitoring port cannot be opened at ${formatAddress(options.listen)}: ${why}`;
      throw new HawserError("bind_failed", message, { cause });
    }
    const monitor = new Monitor(options, limits, server);
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
    // Node.js sets no limit to the time in which a client reads. Unreferenced, because `close` is not emitted for an
    // answer that never had its turn.
    const late = setTimeout(() => socket.destroy(), this.#limits.requestTimeoutMs).unref();
    response.once("close", () => clearTimeout(late));
    const { status, contentType, body } = await pageOf(request.method ?? "", request.url ?? "", this.#sources);
    response.writeHead(status, {
      "Content-Type": contentType,
      "Content-Length": Buffer.byteLength(body),
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
      ...(status === 405 && { Allow: allowedMethods }),
      // The body is not read, so the connection is closed after the answer.
      ...((hasBody(request) || this.#stopped !== undefined) && { Connection: "close" }),
    });
    response.end(body);
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}

interface Page {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** Sources of the pages. */
export interface PageSources {
  readonly metrics: Pick<ServeMetrics, "contentType" | "text">;
  /** Checks in the order in which they are shown. */
  readonly health: readonly HealthCheck[];
  readonly logger: Logger;
}

/** Methods that are answered. */
const allowedMethods = "GET, HEAD";

const paths = "/metrics, /healthz and /readyz";

/** Returns the page of a request. Never rejects: a failure is logged and answered with 500. */
async function pageOf(method: string, target: string, sources: PageSources): Promise<Page> {
  const path = target.split("?", 1)[0];
  const read = readers.get(path ?? "");
  if (read === undefined) return line(404, `Not found. The pages are ${paths}.`);
  if (method !== "GET" && method !== "HEAD")
    return line(405, `Only ${allowedMethods.replace(", ", " and ")} are answered.`);
  try {
    return await read(sources);
  } catch (err) {
    sources.logger.error({ err, path }, "failed to render a page of the monitoring port");
    return line(500, "The page could not be rendered; the log of `hawser serve` says why.");
  }
}

type PageReader = (sources: PageSources) => Page | Promise<Page>;

const readers: ReadonlyMap<string, PageReader> = new Map<string, PageReader>([
  ["/metrics", async ({ metrics }) => ({ status: 200, contentType: metrics.contentType, body: await metrics.text() })],
  ["/healthz", (sources) => healthPage("health", sources)],
  ["/readyz", (sources) => healthPage("readiness", sources)],
]);

function healthPage(page: HealthPage, { health, logger }: PageSources): Page {
  const { isOk, checks } = healthReport(page, health, (check, err) =>
    logger.error({ err, check }, "a health check threw an error"),
  );
  const body = JSON.stringify({ status: isOk ? "ok" : "failing", checks });
  return { status: isOk ? 200 : 503, contentType: "application/json; charset=utf-8", body: `${body}\n` };
}

function line(status: number, text: string): Page {
  return { status, contentType: "text/plain; charset=utf-8", body: `${text}\n` };
}
