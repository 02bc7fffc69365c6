/**
 * A wire to Postgres that can be cut, and that can keep the server's answers back.
 */
import net from "node:net";

/** A TCP proxy in front of a database server. */
export interface Proxy extends AsyncDisposable {
  /** The database's URL by way of the proxy. */
  readonly url: string;
  /** From here on nothing that the server says arrives, on all connections. */
  keepAnswersBack(): void;
  /** From here on nothing arrives in either direction; the connections stay open. */
  freeze(): void;
  /** Ends all connections. New ones go through again. */
  cut(): void;
  /** New connections go to another server; the database's name stays. */
  leadTo(databaseUrl: string): void;
}

/** Starts a proxy in front of the server of a database URL. */
export async function startProxy(databaseUrl: string): Promise<Proxy> {
  let target = new URL(databaseUrl);
  const pairs = new Set<{ client: net.Socket; server: net.Socket }>();
  let forwardsAnswers = true;
  let forwardsQuestions = true;
  const listener = net.createServer((client) => {
    const server = net.connect(Number(target.port), target.hostname);
    const pair = { client, server };
    pairs.add(pair);
    client.on("data", (bytes) => forwardsQuestions && server.write(bytes));
    server.on("data", (bytes) => forwardsAnswers && client.write(bytes));
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        server.destroy();
        pairs.delete(pair);
      });
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String((listener.address() as net.AddressInfo).port);
  const cut = (): void => {
    for (const { client, server } of pairs) {
      client.destroy();
      server.destroy();
    }
    forwardsAnswers = true;
    forwardsQuestions = true;
  };
  return {
    url: url.href,
    keepAnswersBack: () => {
      forwardsAnswers = false;
    },
    freeze: () => {
      forwardsAnswers = false;
      forwardsQuestions = false;
    },
    cut,
    leadTo: (otherUrl) => {
      target = new URL(otherUrl);
    },
    [Symbol.asyncDispose]: async () => {
      cut();
      await new Promise<void>((resolve) => listener.close(() => resolve()));
    },
  };
}
