/**
 * Waits until what is under way on loopback has arrived, without a sleep.
 */
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

let echo: Promise<Socket> | undefined;

async function startEcho(): Promise<Socket> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => {});
    socket.pipe(socket).unref();
  });
  server.unref();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = connect({ port: (server.address() as { port: number }).port, host: "127.0.0.1", noDelay: true });
  socket.unref();
  await once(socket, "connect");
  return socket;
}

/**
 * Sends bytes around loopback until they are back, a few times over. Loopback keeps the order, and the event loop reads
 * what is there: whatever was written before, and the answers to it, have been read by then.
 */
export async function settle(): Promise<void> {
  echo ??= startEcho();
  const socket = await echo;
  for (let round = 0; round < 4; round++) {
    await new Promise((resolve) => setImmediate(resolve));
    socket.write("x");
    await once(socket, "data");
  }
}
