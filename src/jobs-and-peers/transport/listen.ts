/** Listening for senders. */
import { lookup } from "node:dns/promises";
import { createServer, isIP, type Server } from "node:net";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { errorMessageOf, HawserError } from "../../foundation/errors/index.js";
import { systemClock } from "../../foundation/runtime/index.js";
import { type Address, formatAddress, isLoopback, parseAddress } from "../wire/index.js";
import { AcceptedSocket, type ListenOptions } from "./accept.js";
import { plaintextRefused } from "./failures.js";
import { PendingHandshakes } from "./pending-handshakes.js";
import { TlsAcceptor } from "./tls-socket.js";

/** Maximum number of pending handshakes. A further connection replaces the oldest of them. */
export const maxPendingHandshakes = 256;

/** Listening socket. */
export interface Listener {
  /** Bound address with the real port, `host:port`. */
  readonly boundAddress: string;
  /**
   * Stops listening and destroys pending handshakes without a report. With `connections: true`, established connections
   * are destroyed too, without further calls of their handlers. Resolves when the port is free.
   */
  close(options: { readonly connections: boolean }): Promise<void>;
}

/**
 * Binds the address and accepts senders.
 *
 * @throws HawserError (as a rejection) `bind_failed` if the address is malformed, unknown or in use;
 * `plaintext_refused` if it is not loopback without TLS or `allowPlaintext`
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const { address, tls, allowPlaintext = false } = options;
  const cannotListen = (cause: unknown): HawserError => {
    const why = errorMessageOf(cause);
    return new HawserError("bind_failed", `cannot listen on ${address}: ${why}`, { cause });
  };
  let parsed: Address;
  try {
    parsed = parseAddress(address);
  } catch (cause) {
    throw cannotListen(cause);
  }
  const { host, port } = parsed;
  try {
    const ip = isIP(host) === 0 ? (await lookup(host)).address : host;
    if (tls === undefined && !allowPlaintext && !isLoopback(ip)) throw plaintextRefused(address);
    await tls?.refresh();
    return await bind(options, ip, port);
  } catch (cause) {
    throw cause instanceof HawserError ? cause : cannotListen(cause);
  }
}

async function bind(options: ListenOptions, host: string, port: number): Promise<Listener> {
  const { tls, clock = systemClock } = options;
  const acceptor = tls && new TlsAcceptor(tls);
  const pending = new PendingHandshakes<AcceptedSocket>();
  const authenticated = new Set<AcceptedSocket>();
  const server = createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: protocolConstants.pingAfterMs },
    (socket) => {
      const pendingCount = pending.size;
      if (pendingCount >= maxPendingHandshakes) {
        const oldest = pending.oldestOfBusiestOrigin!;
        pending.delete(oldest, oldest.remoteHost);
        oldest.refuse(new HawserError("busy", `${pendingCount} handshakes were pending, and a newer one arrived`));
      }
      const accepted: AcceptedSocket = new AcceptedSocket(options, socket, acceptor, () => {
        pending.delete(accepted, accepted.remoteHost);
        authenticated.add(accepted);
      });
      pending.add(accepted, accepted.remoteHost);
      socket.once("close", () => {
        pending.delete(accepted, accepted.remoteHost);
        authenticated.delete(accepted);
      });
    },
  );
  await listening(server, host, port);
  // The server reports a connection that it could not accept, for example if file descriptors are exhausted. Listening
  // continues.
  server.on("error", (cause) =>
    options.onHandshakeRefused({
      remoteAddress: "unknown",
      code: "connection_lost",
      message: `a connection could not be accepted: ${cause.message}`,
      cause,
    }),
  );
  const stopWatching = tls?.watch(clock);
  return {
    boundAddress: boundAddressOf(server),
    close: async ({ connections }) => {
      server.close();
      stopWatching?.();
      acceptor?.close();
      for (const accepted of [...pending, ...authenticated])
        if (connections || !accepted.isEstablished) accepted.destroy();
      // The "close" event of the server waits for all connections; the port is free in the next turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

async function listening(server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function boundAddressOf(server: Server): string {
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new HawserError("internal", "a TCP server has no address");
  return formatAddress({ host: bound.address, port: bound.port });
}
