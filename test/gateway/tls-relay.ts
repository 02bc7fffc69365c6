/**
 * A stranger between Postgres and the gateway who ends TLS with a certificate of his own, and passes everything on.
 */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls, TLSSocket } from "node:tls";
import type { Issued } from "../support/certificate-authority.js";
import { sslRequest } from "./protocol/frontend-messages.js";

const ALPNProtocols = ["postgresql"];

export class TlsRelay implements AsyncDisposable {
  /** Bytes that Postgres has sent so far, as the relay reads them. */
  seen = "";
  readonly #sockets = new Set<Socket>();

  readonly #server: Server;
  readonly #target: number;
  readonly #own: Issued;

  private constructor(server: Server, target: number, own: Issued) {
    this.#server = server;
    this.#target = target;
    this.#own = own;
    server.on("connection", (socket) => void this.#relay(socket).catch(() => socket.destroy()));
  }

  /** @param target the gateway's port on this machine */
  static async start(target: number, own: Issued): Promise<TlsRelay> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    return new TlsRelay(server, target, own);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async #relay(socket: Socket): Promise<void> {
    await once(this.#kept(socket), "data");
    const raw = this.#kept(connect(this.#target, "127.0.0.1"));
    raw.write(sslRequest);
    await once(raw, "data");
    const up = this.#kept(connectTls({ socket: raw, rejectUnauthorized: false, ALPNProtocols }));
    await once(up, "secureConnect");
    const front = this.#kept(new TLSSocket(socket, { isServer: true, ...this.#own, ALPNProtocols }));
    socket.write("S");
    front.on("data", (chunk: Buffer) => {
      this.seen += chunk.toString("latin1");
      up.write(chunk);
    });
    up.on("data", (chunk: Buffer) => front.write(chunk));
    up.on("end", () => front.end());
  }

  #kept<S extends Socket>(socket: S): S {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}
