/**
 * A TCP proxy that can stop passing bytes on, or cut its connections: what a network does.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

export class TcpProxy implements AsyncDisposable {
  /** Bytes that went from the dialler to the target. */
  readonly forward: Buffer[] = [];
  readonly #sockets: Socket[] = [];
  #stalled = false;

  readonly #server: Server;

  private constructor(server: Server, targetPort: () => number, pieceBytes: number, latencyMs: number) {
    this.#server = server;
    server.on("connection", (near) => {
      const far = connect({ port: targetPort(), host: "127.0.0.1", noDelay: true });
      this.#sockets.push(near, far);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on("data", (chunk) => {
          if (this.#stalled) return;
          if (to === far) this.forward.push(chunk);
          const pass = (): void => {
            for (let at = 0; at < chunk.length; at += pieceBytes) to.write(chunk.subarray(at, at + pieceBytes));
          };
          // Timers of one length keep their order.
          if (latencyMs > 0) setTimeout(pass, latencyMs);
          else pass();
        });
        from.on("end", () => this.#stalled || to.end());
        from.on("error", () => {});
      }
    });
  }

  /**
   * @param targetPort a function where the target listens later than the proxy
   * @param options.pieceBytes passes on so many bytes at a time. Default: what has come
   * @param options.latencyMs passes them on so much later. Default 0
   */
  static async to(
    targetPort: number | (() => number),
    options: { readonly pieceBytes?: number; readonly latencyMs?: number } = {},
  ): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    const port = typeof targetPort === "number" ? () => targetPort : targetPort;
    const proxy = new TcpProxy(server, port, options.pieceBytes ?? Infinity, options.latencyMs ?? 0);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get address(): string {
    const bound = this.#server.address();
    if (bound === null || typeof bound === "string") throw new Error("the proxy does not listen");
    return `127.0.0.1:${bound.port}`;
  }

  /** From now on every byte and every FIN is lost. */
  stall(): void {
    this.#stalled = true;
  }

  /** Resets the connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
