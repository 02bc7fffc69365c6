/**
 * Stands between a client and a server of NATS, and remembers what the client has sent.
 */
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial } from "node:net";

/** A relay on a port of 127.0.0.1. */
export interface Relay extends AsyncDisposable {
  readonly port: number;
  /** All that clients have sent. */
  sent(): string;
}

/** Starts one in front of a server. */
export async function startRelay(server: { readonly host: string; readonly port: number }): Promise<Relay> {
  const chunks: Buffer[] = [];
  const relay = createServer((inbound) => {
    const outbound = dial(server.port, server.host);
    inbound.on("data", (chunk) => void chunks.push(chunk));
    inbound.pipe(outbound).pipe(inbound);
    for (const socket of [inbound, outbound]) socket.on("error", () => socket.destroy());
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  return {
    port: (relay.address() as AddressInfo).port,
    sent: () => Buffer.concat(chunks).toString("latin1"),
    async [Symbol.asyncDispose]() {
      relay.close();
    },
  };
}
