/** HTTP server of `hawser page` and `hawser serve --page`. */
import { createServer } from "node:http";
import { HawserError } from "../../foundation/errors/index.js";
import { systemClock } from "../../foundation/runtime/index.js";
import { listenAt } from "../../jobs-and-peers/transport/index.js";
import { formatAddress, isLoopback, parseAddress } from "../../jobs-and-peers/wire/index.js";
import { createPage } from "./page.js";
import type { PageOptions } from "./page-options.js";

/** Maximum time in which the server of hawser page receives a request. */
const requestTimeoutMs = 10_000;
/** Maximum number of connections of browsers to the server of hawser page. */
const maxBrowserConnections = 256;

/** Options of {@link servePage}: those of the page, and of its server. */
export interface PageServerOptions extends PageOptions {
  /** Address to listen at, host:port; port 0 takes a free one. */
  readonly listen: string;
  /** Allows an address that other machines reach. Default false. */
  readonly allowPlaintext?: boolean | undefined;
}

/** Running server of a page. */
export interface PageServer extends AsyncDisposable {
  /** URL of the page. */
  readonly url: string;
}

/**
 * Serves a page on an address of its own. At a loopback address it answers only for names of this machine and `hosts`.
 *
 * @throws HawserError `invalid_argument` for an invalid option; `plaintext_refused` for an address that other machines
 * reach, without `allowPlaintext`; `bind_failed` if the address cannot be used
 */
export async function servePage({
  listen,
  allowPlaintext = false,
  ...options
}: PageServerOptions): Promise<PageServer> {
  const address = parseAddress(listen);
  const { host } = address;
  const isLocal = isLoopback(host);
  if (!isLocal && !allowPlaintext) {
    throw new HawserError(
      "plaintext_refused",
      `the page does not listen at ${formatAddress(address)}, because everyone who reaches it acts as its login: listen at 127.0.0.1, behind a proxy with TLS and a login of its own, or allow plaintext if the network is trusted`,
    );
  }
  const local = ["localhost", "127.0.0.1", "[::1]", host];
  const hosts = isLocal ? [...local, ...(options.hosts ?? [])] : options.hosts;
  const handler = createPage({ ...options, hosts }, systemClock, true);
  const limits = { requestTimeout: requestTimeoutMs, headersTimeout: requestTimeoutMs };
  const server = createServer(limits, (request, response) => void handler.listener(request, response));
  server.maxConnections = maxBrowserConnections;
  const bound = await listenAt(server, address, "the page cannot be opened at").catch(async (error: unknown) => {
    await handler.close();
    throw error;
  });
  server.on("error", (err) => options.logger?.error({ err }, "the page could not accept a connection"));
  return {
    url: `http://${formatAddress(bound)}${options.pathPrefix ?? ""}/`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      await handler.close();
    },
  };
}
