/**
 * The monitoring port of `hawser serve`: a small HTTP server for scrapers and probes. It asks for no password, and
 * needs none of its clients to be well-behaved.
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

/** What it serves, and where. */
export interface MonitorOptions extends PageSources {
  /** Port 0 takes a free one. */
  readonly listen: Address;
  /** Default those of the spec. */
  readonly limits?: Partial<MonitorConstants> | undefined;
}

/** The HTTP server of the monitoring port. */
export class Monitor implements AsyncDisposable {
  /** Where it listens, with the real port. */
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
    // Out of file descriptors, for example. Listening goes on.
    server.on("error", (err) => options.logger.error({ err }, "the monitoring port could not accept a connection"));
  }

  /**
   * Binds the address and answers.
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
      // Rejects with what the server emits as an error.
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
   * Listens no more, closes idle connections at once and the others when they have their answer, `stopTimeoutMs` later at
   * the latest. A further call waits for the first.
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
    // Node waits for ever for a client to read. Unreferenced, as an answer whose turn never came is not told of the end.
    const late = setTimeout(() => socket.destroy(), this.#limits.requestTimeoutMs).unref();
    response.once("close", () => clearTimeout(late));
    const { status, contentType, body } = await pageOf(request.method ?? "", request.url ?? "", this.#sources);
    response.writeHead(status, {
      "Content-Type": contentType,
      "Content-Length": Buffer.byteLength(body),
      "Cache-Control": "no-store",
      "X-Content-Type-Options": "nosniff",
      ...(status === 405 && { Allow: allowedMethods }),
      // Nobody reads a body, and its end is not waited for.
      ...((hasBody(request) || this.#stopped !== undefined) && { Connection: "close" }),
    });
    response.end(body);
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
}

/** An answer. */
interface Page {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** Where the contents come from. */
export interface PageSources {
  readonly metrics: Pick<ServeMetrics, "contentType" | "text">;
  /** In the order in which they are shown. */
  readonly health: readonly HealthCheck[];
  readonly logger: Logger;
}

/** The methods that are answered. */
const allowedMethods = "GET, HEAD";

const paths = "/metrics, /healthz and /readyz";

/** Never rejects: what fails is logged and answered with 500. */
async function pageOf(method: string, target: string, sources: PageSources): Promise<Page> {
  const path = target.split("?", 1)[0];
  const read = readers.get(path ?? "");
  if (read === undefined) return line(404, `There is nothing here. What there is: ${paths}.`);
  if (method !== "GET" && method !== "HEAD")
    return line(405, `Only ${allowedMethods.replace(", ", " and ")} are answered.`);
  try {
    return await read(sources);
  } catch (err) {
    sources.logger.error({ err, path }, "a page of the monitoring port could not be made");
    return line(500, "The page could not be made; the log of `hawser serve` says why.");
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
    logger.error({ err, check }, "a health check failed by itself"),
  );
  const body = JSON.stringify({ status: isOk ? "ok" : "failing", checks });
  return { status: isOk ? 200 : 503, contentType: "application/json; charset=utf-8", body: `${body}\n` };
}

function line(status: number, text: string): Page {
  return { status, contentType: "text/plain; charset=utf-8", body: `${text}\n` };
}
