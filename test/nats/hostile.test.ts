import type { Socket } from "node:net";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { connectOnce } from "../../src/nats/connections/connect.js";
import type { SecretFiles } from "../../src/nats/connections/secret-files.js";
import { eventually } from "../support/eventually.js";
import { connectError, next, optionsFor, testConnector } from "./support/connectors.js";
import { fakeServer, greeting, welcoming } from "./support/fake-server.js";

async function errorAt(behave: (socket: Socket) => void) {
  const server = await fakeServer(behave);
  const error = await connectError(optionsFor(server, { token: "a-secret" }));
  await eventually("our side of each connection is closed", () => server.sockets.every((socket) => socket.closed));
  return { error, server };
}

describe("a server that is none of NATS", () => {
  it.each([
    {
      what: "an HTTP server",
      says: "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
      words: 'it sent "HTTP/1.1 400 Bad Request Connection: close"',
    },
    { what: "Postgres", says: "N", words: 'it sent "N"' },
    { what: "bytes", says: "\u0000\u00ff\u001b[2J\r\n", words: 'it sent "[2J"' },
    { what: "a greeting that is no JSON", says: "INFO hello\r\n", words: 'it sent "INFO hello"' },
    { what: "a greeting that is no object", says: "INFO null\r\n", words: 'it sent "INFO null"' },
    { what: "a greeting without end", says: `INFO {"server_id":"${"x".repeat(70_000)}`, words: "it sent" },
  ])("is told apart by what it says: $what", async ({ says, words }) => {
    const { error, server } = await errorAt((socket) => socket.write(says, "latin1"));
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.detail).toContain("It is not a NATS server");
    expect(error?.detail).toContain(words);
    expect(error!.message.length).toBeLessThan(300);
    expect(server.received()).toBe("");
  });
});

describe("a server that closes", () => {
  it.each([
    { when: "at once", behave: (socket: Socket) => socket.end() },
    { when: "in its greeting", behave: (socket: Socket) => socket.end(greeting().slice(0, 20)) },
    {
      when: "when it is greeted",
      behave: (socket: Socket) => {
        socket.write(greeting());
        socket.once("data", () => socket.end());
      },
    },
  ])("$when is unavailable", async ({ behave }) => {
    const { error } = await errorAt(behave);
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.detail).toBe("The server closed the connection.");
  });

  it("by a reset is unavailable", async () => {
    const { error } = await errorAt((socket) => {
      socket.write(greeting());
      socket.once("data", () => socket.resetAndDestroy());
    });
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.detail).toBe("The server reset the connection (ECONNRESET).");
  });

  it("with a reason is unavailable for that reason", async () => {
    const { error } = await errorAt((socket) => {
      socket.write(greeting());
      socket.once("data", () => socket.end("-ERR 'maximum connections exceeded'\r\n"));
    });
    expect(error?.code).toBe("nats_unavailable");
    expect(error?.detail).toBe('The server reports: "maximum connections exceeded".');
  });
});

describe("an attempt to connect", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    return () => void vi.useRealTimers();
  });

  /** Resolves when it is so; what happens on sockets takes turns of the event loop. */
  async function until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
  }

  it("gives a server that does not answer its time and no more, and keeps no connection to it", async () => {
    const mute = await fakeServer(() => undefined);
    const greets = await fakeServer((socket) => socket.write(greeting()));
    const asking = await fakeServer((socket) => {
      socket.write(greeting());
      socket.on("data", () => socket.write("PING\r\n"));
    });
    const servers = [mute, greets, asking];
    const outcomes = Promise.all(servers.map((server) => connectError(optionsFor(server, { token: "a-secret" }))));
    await until(() => mute.sockets.length === 1 && [greets, asking].every((one) => one.received().includes("PING")));
    await vi.advanceTimersByTimeAsync(4_000);
    expect((await outcomes).map((error) => [error?.code, error?.detail])).toEqual([
      ["nats_unavailable", "The server did not accept the connection and send INFO within 4000 ms."],
      ["nats_unavailable", "The server did not answer CONNECT within 4000 ms."],
      ["nats_unavailable", "The server did not answer CONNECT within 4000 ms."],
    ]);
    await until(() => servers.every(({ sockets }) => sockets.every(({ closed }) => closed)));
  });

  it("does not wait longer for a file system that does not answer", async () => {
    const files = { reading: "token_path", readSecret: () => new Promise(() => undefined) } as unknown as SecretFiles;
    const server = await fakeServer((socket) => welcoming(socket));
    const options = optionsFor(server, { token_path: "/run/secrets/token" });
    const attempt = connectOnce({ name: "hawser test", options, files, signal: new AbortController().signal });
    const refusal = expect(attempt).rejects.toMatchObject({
      code: "secret_file",
      detail: "token_path: the file system does not answer.",
    });
    await vi.advanceTimersByTimeAsync(4_000);
    await refusal;
    expect(server.sockets).toHaveLength(0);
  });
});

it("connects to the configured server only, whatever that one says of others", async () => {
  const other = await fakeServer((socket) => welcoming(socket));
  const server = await fakeServer((socket) => {
    welcoming(socket, { connect_urls: [`127.0.0.1:${other.port}`] });
    socket.once("data", () => setImmediate(() => socket.end()));
  });
  const { connector } = testConnector();
  connector.configure(optionsFor(server));
  await next(connector, "lost");
  await next(connector, "lost");
  expect(server.sockets.length).toBeGreaterThan(1);
  expect(other.sockets).toHaveLength(0);
});

it("sends an empty user name with its password", async () => {
  const server = await fakeServer((socket) => welcoming(socket));
  const { connector } = testConnector();
  connector.configure(optionsFor(server, { username: "", password: "access-token" }));
  await connector.connected();
  const [, connect] = /^CONNECT (.*)\r\n/.exec(server.received())!;
  expect(JSON.parse(connect!)).toMatchObject({ user: "", pass: "access-token", name: "hawser test" });
});

describe("a later message of the server", () => {
  it.each([
    { says: "User Authentication Expired", code: "nats_unauthorized" },
    { says: "User Authentication Revoked", code: "nats_unauthorized" },
    { says: "Account Authentication Expired", code: "nats_unauthorized" },
    { says: "Stale Connection", code: "nats_unavailable" },
  ])("is why the connection is lost: $says", async ({ says, code }) => {
    const server = await fakeServer((socket) => welcoming(socket));
    const { connector } = testConnector();
    connector.configure(optionsFor(server, { token: "a-secret" }));
    await connector.connected();
    const lost = next(connector, "lost");
    const again = next(connector, "connected");
    server.sockets[0]!.end(`-ERR '${says}'\r\n`);
    const [error] = await lost;
    expect(error.code).toBe(code);
    expect(error.detail).toContain(`"${says}"`);
    await again;
    expect(server.sockets).toHaveLength(2);
  });
});
