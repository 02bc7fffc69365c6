import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { connect as connectNats } from "@nats-io/transport-node";
import { expect, it, onTestFinished } from "vitest";
import { natsRules } from "../../src/development/testing/nats-accounts.js";
import { Relay, type RelayRules, relayTo } from "../../src/development/testing/relay.js";
import { testNatsUrl } from "../support/database.js";

/** A relay before a server that says hello and echoes. */
async function echoing(rules: RelayRules = {}): Promise<{ relay: Relay; got: () => string; open(): Promise<Client> }> {
  let got = "";
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.write("HELLO {}\r\n");
    socket.on("data", (chunk) => {
      got += chunk.toString();
      socket.write(chunk);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const relay = await Relay.start({ host: "127.0.0.1", port: (server.address() as AddressInfo).port }, rules);
  onTestFinished(async () => {
    await relay.close();
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { relay, got: () => got, open: () => Client.open(relay.port) };
}

/** A client that remembers what came. */
class Client {
  #text = "";
  readonly socket: Socket;
  readonly closed: Promise<unknown>;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      this.#text += chunk.toString();
    });
  }

  static async open(port: number): Promise<Client> {
    const socket = connect(port, "127.0.0.1");
    const client = new Client(socket);
    await once(socket, "connect");
    return client;
  }

  async says(text: string): Promise<void> {
    while (this.#text !== text) await once(this.socket, "data");
  }
}

it("passes what comes, in both directions", async () => {
  const { open } = await echoing();
  const client = await open();
  client.socket.write("one");
  await client.says("HELLO {}\r\none");
});

it("ends and refuses connections while it is cut, and has its port again afterwards", async () => {
  const { relay, open } = await echoing();
  const client = await open();
  await client.says("HELLO {}\r\n");
  await relay.cut(false);
  await client.closed;
  await expect(open()).rejects.toMatchObject({ code: "ECONNREFUSED" });
  await relay.restore();
  await (await open()).says("HELLO {}\r\n");
});

it("holds back what passes while it is silent, also of new connections", async () => {
  const { relay, got, open } = await echoing();
  const client = await open();
  await client.says("HELLO {}\r\n");
  await relay.cut(true);
  client.socket.write("late");
  const other = await open();
  other.socket.write("later");
  // What another way round takes the same time would have come by now.
  await (await echoing()).open().then((another) => another.says("HELLO {}\r\n"));
  expect(got()).toBe("");
  await relay.restore();
  await client.says("HELLO {}\r\nlate");
  await other.says("HELLO {}\r\nlater");
});

it("changes the first line of each direction, however it is cut into chunks", async () => {
  const upper = (line: string): string => line.toUpperCase();
  const { got, open } = await echoing({ firstOfClient: upper, firstOfServer: (line) => line.replace("{}", "ü") });
  const client = await open();
  client.socket.setNoDelay(true);
  for (const character of "first ä\r\nsecond\r\n") {
    client.socket.write(character);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await client.says("HELLO ü\r\nFIRST Ä\r\nsecond\r\n");
  expect(got()).toBe("FIRST Ä\r\nsecond\r\n");
});

it("gives a NATS client the credentials of an account, and no other server's address", () => {
  const { firstOfClient, firstOfServer } = natsRules({ user: "test1", password: "secret" });
  expect(firstOfClient!('CONNECT {"verbose":false,"user":"me"}')).toBe(
    'CONNECT {"verbose":false,"user":"test1","pass":"secret"}',
  );
  expect(firstOfServer!('INFO {"server_id":"x","auth_required":true,"connect_urls":["10.0.0.1:4222"]} ')).toBe(
    'INFO {"server_id":"x"}',
  );
  expect(natsRules(undefined).firstOfServer!('INFO {"auth_required":true}')).toBe('INFO {"auth_required":true}');
  expect(firstOfServer!("-ERR 'no'")).toBe("-ERR 'no'");
});

it("is no hindrance to a client of a real nats-server", async () => {
  const { hostname, port } = new URL(testNatsUrl());
  const relay = await Relay.start({ host: hostname, port: Number(port) }, natsRules(undefined));
  onTestFinished(() => relay.close());
  const nats = await connectNats({ servers: `127.0.0.1:${relay.port}` });
  await nats.flush();
  await nats.close();
});

it.each([
  "postgresql://me@db.internal/app?sslmode=require",
  "postgresql://me@a,b:5433/app",
  "postgresql://%2Fvar%2Frun/app",
  "postgresql:///app?host=/var/run",
  "tls://nats.internal:4222",
  "host=db dbname=app",
])("is not put before %s, where clients would not accept it", async (url) => {
  expect(await relayTo(url, 5432, {})).toEqual({ url, relay: undefined });
});

it("keeps everything of a URL but the address", async () => {
  const { url, relay } = await relayTo("postgresql://me:secret@[::1]:5433/app?sslmode=disable&a=b", 5432, {});
  onTestFinished(() => relay!.close());
  expect(url).toBe(`postgresql://me:secret@127.0.0.1:${relay!.port}/app?sslmode=disable&a=b`);
});
