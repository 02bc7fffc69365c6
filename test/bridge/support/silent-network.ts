/**
 * A network between Hawser and the NATS server that can fall silent: what is sent is lost, and no end hears of it.
 */
import { connect, createServer, type Socket } from "node:net";

/** See above. Disposing closes it. */
export interface SilentNetwork extends AsyncDisposable {
  /** Where the server is reached by it. */
  readonly url: string;
  /**
   * Loses whatever goes over the connections that there are by now.
   *
   * @param client only those of the client of this name
   * @returns how many
   */
  freeze(client?: string): number;
  /** Ends the oldest connection of the client of this name, and lets new ones through. @returns whether there was one */
  cut(client: string): boolean;
}

/** What a client says of itself when it connects. */
const clientName = /"name":"([^"]+)"/;

/** @param natsUrl the server */
export async function silentNetwork(natsUrl: string): Promise<SilentNetwork> {
  const pairs = new Set<{ readonly sockets: readonly Socket[]; name: string | undefined }>();
  const server = createServer((near) => {
    const far = connect({ port: Number(new URL(natsUrl).port), host: "127.0.0.1", noDelay: true });
    const pair = { sockets: [near, far], name: undefined as string | undefined };
    pairs.add(pair);
    near.on("data", (chunk) => {
      pair.name ??= clientName.exec(chunk.toString("latin1"))?.[1];
    });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on("error", () => undefined);
      from.on("close", () => pairs.delete(pair));
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `nats://127.0.0.1:${port}`,
    freeze: (client) => {
      const chosen = [...pairs].filter(({ name }) => client === undefined || name === client);
      for (const socket of chosen.flatMap(({ sockets }) => sockets)) {
        socket.unpipe();
        socket.resume();
      }
      return chosen.length;
    },
    cut: (client) => {
      const oldest = [...pairs].find(({ name }) => name === client);
      for (const socket of oldest?.sockets ?? []) socket.destroy();
      return oldest !== undefined;
    },
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const { sockets } of pairs) for (const socket of sockets) socket.destroy();
    },
  };
}
