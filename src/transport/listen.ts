/**
 * Listening for senders.
 */
import { lookup } from "node:dns/promises";
import { createServer, isIP, type Server } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { HawserError } from "../errors/index.js";
import { systemClock } from "../runtime/index.js";
import { formatAddress, isLoopback, parseAddress } from "../wire/index.js";
import { AcceptedSocket, type ListenOptions } from "./accept.js";
import { plaintextRefused } from "./failures.js";
import { PendingHandshakes } from "./pending-handshakes.js";
import { TlsAcceptor } from "./tls-socket.js";

/** A listening socket. */
export interface Listener {
  /** `host:port` as bound, with the real port. */
  readonly boundAddress: string;
  /**
   * Ends listening, and handshakes under way (without a report). With `connections: true` established connections are
   * destroyed too: their handlers are not called any more. Resolves when the port is free.
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
  try {
    const { host, port } = parseAddress(address);
    const ip = isIP(host) === 0 ? (await lookup(host)).address : host;
    if (tls === undefined && !allowPlaintext && !isLoopback(ip)) throw plaintextRefused(address);
    await tls?.refresh();
    return await bind(options, ip, port);
  } catch (cause) {
    if (cause instanceof HawserError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HawserError("bind_failed", `cannot listen on ${address}: ${why}`, { cause });
  }
}

async function bind(options: ListenOptions, host: string, port: number): Promise<Listener> {
  const { tls, clock = systemClock } = options;
  const acceptor = tls && new TlsAcceptor(tls);
  const strangers = new PendingHandshakes<AcceptedSocket>();
  const proved = new Set<AcceptedSocket>();
  const server = createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: protocolConstants.pingAfterMs },
    (socket) => {
      const underWay = strangers.size;
      if (underWay >= protocolConstants.maxPendingHandshakes) {
        const oldest = strangers.expendable!;
        strangers.delete(oldest, oldest.remoteHost);
        oldest.refuse(new HawserError("busy", `${underWay} handshakes were under way, and a newer one came`));
      }
      const accepted: AcceptedSocket = new AcceptedSocket(options, socket, acceptor, () => {
        strangers.delete(accepted, accepted.remoteHost);
        proved.add(accepted);
      });
      strangers.add(accepted, accepted.remoteHost);
      socket.once("close", () => {
        strangers.delete(accepted, accepted.remoteHost);
        proved.delete(accepted);
      });
    },
  );
  await listening(server, host, port);
  // Out of file descriptors, for example. Listening goes on.
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
      for (const accepted of [...strangers, ...proved]) if (connections || !accepted.isEstablished) accepted.destroy();
      // The server's own "close" waits for every connection; its handle goes with the next turn of the event loop.
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
