/**
 * TLS in front of a Postgres that has none.
 */
import net from "node:net";
import tls from "node:tls";
import type { Issued } from "./certificate-authority.js";

/** A server that speaks TLS with the given certificate, or refuses it, in front of the database. */
export async function tlsFront(databaseUrl: string, certificate: Issued | undefined) {
  const target = new URL(databaseUrl);
  const seen = { bytesBehindTls: 0, plainBytes: 0 };
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (request) => {
      const isSslRequest = request.length === 8 && request.readInt32BE(4) === 80877103;
      if (!isSslRequest) seen.plainBytes += request.length;
      if (!isSslRequest || certificate === undefined) {
        socket.write("N");
        socket.on("data", (bytes) => {
          seen.plainBytes += bytes.length;
        });
        return;
      }
      socket.write("S");
      const secure = new tls.TLSSocket(socket, { isServer: true, ...certificate });
      const behind = net.connect(Number(target.port), target.hostname);
      secure.on("data", (bytes) => {
        seen.bytesBehindTls += bytes.length;
      });
      secure.pipe(behind).pipe(secure);
      for (const one of [secure, behind]) {
        one.on("error", () => undefined);
        one.on("close", () => {
          secure.destroy();
          behind.destroy();
        });
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  return {
    seen,
    url: (host: string, query: string): string => {
      const url = new URL(databaseUrl);
      url.hostname = host;
      url.port = String(port);
      return `${url.href}?${query}`;
    },
    [Symbol.asyncDispose]: async () => {
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
