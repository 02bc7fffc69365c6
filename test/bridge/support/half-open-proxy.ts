/**
 * A network between Hawser and Postgres that loses connections without telling either end.
 */
import { connect, createServer, type Socket } from "node:net";

/** See above. Disposing ends its connections. */
export interface HalfOpenProxy extends AsyncDisposable {
  /** As that of the server, with another port. */
  readonly url: string;
  /** Nothing passes any more over the connections that there are by now. @returns how many */
  freeze(): number;
  /** What a client sends with these words in it still arrives; then nothing passes over its connection any more. Once. */
  freezeAfter(words: string): void;
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  isFrozen: boolean;
}

/** For connections without TLS. */
export async function halfOpenProxy(serverUrl: string): Promise<HalfOpenProxy> {
  const { hostname, port } = new URL(serverUrl);
  const pairs = new Set<Pair>();
  let last: string | undefined;
  const server = createServer((near) => {
    const far = connect({ host: hostname, port: Number(port), noDelay: true });
    const pair: Pair = { near, far, isFrozen: false };
    pairs.add(pair);
    near.on("data", (chunk) => {
      if (pair.isFrozen) return;
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
  return {
    url: url.href,
    freeze: () => {
      const open = [...pairs].filter(({ near, isFrozen }) => !isFrozen && !near.destroyed);
      for (const pair of open) pair.isFrozen = true;
      return open.length;
    },
    freezeAfter: (words) => {
      last = words;
    },
    [Symbol.asyncDispose]: async () => {
      for (const { near, far } of pairs) {
        near.destroy();
        far.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
