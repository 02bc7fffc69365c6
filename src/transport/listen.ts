/**
 * Listening for senders.
 */
import { lookup } from "node:dns/promises";
import { createServer, isIP, type Server, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { TransportError } from "../errors/index.js";
import { formatAddress, isLoopback, parseAddress } from "../wire/index.js";
import { AcceptedSocket } from "./accept.js";
import type { ListenOptions } from "./listen-options.js";
import { plaintextRefused } from "./plaintext.js";

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
 * @throws TransportError (as a rejection) `bind_failed` if the address is malformed, unknown or in use;
 * `plaintext_refused` if it is not loopback without `allowPlaintext`
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const { address, allowPlaintext = false } = options;
  try {
    const { host, port } = parseAddress(address);
    const ip = isIP(host) === 0 ? (await lookup(host)).address : host;
    if (!allowPlaintext && !isLoopback(ip)) throw plaintextRefused(address);
    return await bind(options, ip, port);
  } catch (cause) {
    if (TransportError.is(cause)) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TransportError("bind_failed", `cannot listen on ${address}: ${why}`, { cause });
  }
}

async function bind(options: ListenOptions, host: string, port: number): Promise<Listener> {
  const pending = new Set<AcceptedSocket>();
  const established = new Set<AcceptedSocket>();
  const server = createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: protocolConstants.pingAfterMs },
    (socket) => {
      if (pending.size >= protocolConstants.maxPendingHandshakes) {
        refuseAtOnce(options, socket, pending.size);
        return;
      }
      const accepted: AcceptedSocket = new AcceptedSocket(options, socket, () => {
        pending.delete(accepted);
        established.add(accepted);
      });
      pending.add(accepted);
      socket.once("close", () => {
        pending.delete(accepted);
        established.delete(accepted);
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
  return {
    boundAddress: boundAddressOf(server),
    close: async ({ connections }) => {
      server.close();
      for (const accepted of pending) accepted.destroy();
      if (connections) for (const accepted of established) accepted.destroy();
      // The server's own "close" waits for every connection; its handle goes with the next turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

/** A flood of handshakes costs nothing but this. */
function refuseAtOnce(options: ListenOptions, socket: Socket, underWay: number): void {
  const { remoteAddress = "unknown", remotePort = 0 } = socket;
  socket.on("error", () => {
    // It is being thrown away; that it was reset meanwhile is no news.
  });
  socket.destroy();
  options.onHandshakeRefused({
    remoteAddress: formatAddress({ host: remoteAddress, port: remotePort }),
    code: "busy",
    message: `${underWay} handshakes are under way already`,
  });
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
  if (bound === null || typeof bound === "string") throw new TransportError("internal", "a TCP server has no address");
  return formatAddress({ host: bound.address, port: bound.port });
}
