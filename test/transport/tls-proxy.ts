/**
 * A man in the middle: ends TLS towards the dialler with a certificate of its own, reads everything, and passes it on,
 * over TLS or not.
 */
import { once } from "node:events";
import { type AddressInfo, connect, type Socket } from "node:net";
import { connect as connectTls, createServer, type Server } from "node:tls";

export class TlsProxy implements AsyncDisposable {
  /** Bytes read from the dialler. */
  readonly read: Buffer[] = [];
  readonly #sockets: Socket[] = [];

  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @param options.ca dial the target over TLS and trust this; without it in plaintext */
  static async to(
    targetPort: number,
    options: { readonly cert: string; readonly key: string; readonly ca?: string },
  ): Promise<TlsProxy> {
    const { cert, key, ca } = options;
    const server = createServer({ cert, key });
    const proxy = new TlsProxy(server);
    server.on("secureConnection", (near) => {
      const target = { port: targetPort, host: "127.0.0.1" };
      const far = ca === undefined ? connect(target) : connectTls({ ...target, ca, cert, key });
      proxy.#sockets.push(near, far);
      near.on("data", (chunk) => proxy.read.push(chunk));
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) socket.on("error", () => {});
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return proxy;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
