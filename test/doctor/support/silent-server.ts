/**
 * A server that takes connections and says nothing, as one that hangs.
 */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";

/** On 127.0.0.1. */
export interface SilentServer extends AsyncDisposable {
  readonly port: number;
  /** Resolves when somebody has connected, and has sent something. */
  readonly addressed: Promise<void>;
}

/** Starts one. */
export async function silentServer(): Promise<SilentServer> {
  const sockets = new Set<Socket>();
  let tell: () => void;
  const addressed = new Promise<void>((resolve) => {
    tell = resolve;
  });
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("data", () => tell());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    addressed,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
