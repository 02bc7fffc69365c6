/**
 * A network between Hawser and a server that loses what is sent without telling either end. For connections without TLS.
 */
import { connect, createServer, type Socket } from "node:net";

/** Disposing ends its connections. */
export interface LossyNetwork extends AsyncDisposable {
  /** As that of the server, with another port. */
  readonly url: string;
  /**
   * Nothing passes any more over the connections that there are by now.
   *
   * @param client only those of the NATS client of this name
   * @returns how many
   */
  freeze(client?: string): number;
  /** Freezes the connection of the next client that sends these words, which still arrive. Works once. */
  freezeAfter(words: string): void;
  /** Ends the oldest connection of the NATS client of this name. @returns whether there was one */
  cut(client: string): boolean;
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  name: string | undefined;
  isFrozen: boolean;
}

/** CONNECT options of a NATS client. */
const clientName = /"name":"([^"]+)"/;

/** @param serverUrl of a Postgres, or a NATS server */
export async function lossyNetwork(serverUrl: string): Promise<LossyNetwork> {
  const { hostname, port } = new URL(serverUrl);
  const pairs = new Set<Pair>();
  let last: string | undefined;
  const server = createServer((near) => {
    const far = connect({ host: hostname, port: Number(port), noDelay: true });
    const pair: Pair = { near, far, name: undefined, isFrozen: false };
    pairs.add(pair);
    near.on("data", (chunk) => {
      if (pair.isFrozen) return;
      pair.name ??= clientName.exec(chunk.toString("latin1"))?.[1];
      far.write(chunk);
      if (last === undefined || !chunk.includes(last)) return;
      last = undefined;
      pair.isFrozen = true;
    });
    far.on("data", (chunk) => {
      if (!pair.isFrozen) near.write(chunk);
    });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        if (!pair.isFrozen) other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = new URL(serverUrl);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as { port: number }).port);
  const open = (client?: string) =>
    [...pairs].filter(
      ({ near, name, isFrozen }) => !isFrozen && !near.destroyed && (client === undefined || name === client),
    );
  const close = ({ near, far }: Pair) => {
    near.destroy();
    far.destroy();
  };
  return {
    url: url.href,
    freeze: (client) => {
      const chosen = open(client);
      for (const pair of chosen) pair.isFrozen = true;
      return chosen.length;
    },
    freezeAfter: (words) => {
      last = words;
    },
    cut: (client) => {
      const [oldest] = open(client);
      if (oldest !== undefined) close(oldest);
      return oldest !== undefined;
    },
    [Symbol.asyncDispose]: async () => {
      for (const pair of pairs) close(pair);
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
