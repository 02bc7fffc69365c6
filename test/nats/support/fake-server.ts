/**
 * A server that behaves as no nats-server should, and remembers what it was sent.
 */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** A server on a port of 127.0.0.1. */
export interface FakeServer {
  readonly host: string;
  readonly port: number;
  /** The connections it has accepted, the closed ones too. */
  readonly sockets: readonly Socket[];
  /** Everything that it was sent, on all connections. */
  received(): string;
}

/** Starts one, closed when the test has ended. @param behave what it does with each connection */
export async function fakeServer(behave: (socket: Socket) => void): Promise<FakeServer> {
  const sockets: Socket[] = [];
  const chunks: Buffer[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("data", (chunk) => chunks.push(chunk));
    // A client that cuts the connection is none of its business.
    socket.on("error", () => undefined);
    behave(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, "close");
  });
  const { port } = server.address() as AddressInfo;
  return { host: "127.0.0.1", port, sockets, received: () => Buffer.concat(chunks).toString("latin1") };
}

/** The greeting of a nats-server. */
export function greeting(info: Readonly<Record<string, unknown>> = {}): string {
  const usual = { server_id: "FAKE", version: "2.10.0", proto: 1, headers: true, max_payload: 1_048_576 };
  return `INFO ${JSON.stringify({ ...usual, ...info })}\r\n`;
}

/** Greets, and answers every PING until it is told otherwise. */
export function welcoming(socket: Socket, info: Readonly<Record<string, unknown>> = {}): void {
  socket.write(greeting(info));
  socket.on("data", (chunk) => {
    for (const _ of chunk.toString("latin1").matchAll(/PING\r\n/g)) socket.write("PONG\r\n");
  });
}
