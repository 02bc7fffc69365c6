/**
 * Connections that go on whatever listeners do, and nothing on the standard output, which is for what users asked for.
 */
import { expect, inject, it, onTestFinished, vi } from "vitest";
import { eventually } from "../support/eventually.js";
import { plainMessage, rawMessage, writeRaw } from "../support/raw-nats.js";
import { connectError, next, optionsFor, testConnector } from "./support/connectors.js";
import { fakeServer, greeting, welcoming } from "./support/fake-server.js";

/** Output of `console.log` while the test ran. */
function written(): unknown[][] {
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined);
  onTestFinished(() => log.mockRestore());
  return log.mock.calls;
}

it("logs what a listener to messages throws, without the message, and goes on", async () => {
  const lines = written();
  const { connector, logged } = testConnector();
  const { hostname, port } = new URL(inject("natsUrl"));
  connector.configure(optionsFor({ host: hostname, port: Number(port) }));
  const connection = await connector.connected();
  const taken: string[] = [];
  const subscription = connection.subscribe("guarded.listener", {
    callback: (_error, message) => {
      taken.push(message.string());
      if (taken.length === 2) throw new Error("a defect for a test");
    },
  });
  await connection.flush();
  const messages = ["one", "a secret payload", "three"].map((payload) => plainMessage("guarded.listener", payload));
  await writeRaw(inject("natsUrl"), ...messages);
  await eventually("all have come", () => taken.length === 3);
  subscription.unsubscribe();
  expect(connection.isClosed()).toBe(false);
  const errors = logged.filter(({ level }) => level === "error");
  expect(errors).toMatchObject([
    { message: "the handler of a NATS message failed", details: { client: "hawser test" } },
  ]);
  expect(JSON.stringify(logged)).not.toContain("a secret payload");
  expect(lines).toEqual([]);
});

it("passes headers to async iterators too", async () => {
  const { connector } = testConnector();
  const { hostname, port } = new URL(inject("natsUrl"));
  connector.configure(optionsFor({ host: hostname, port: Number(port) }));
  const connection = await connector.connected();
  const subscription = connection.subscribe("guarded.iterated", { max: 1 });
  await connection.flush();
  await writeRaw(inject("natsUrl"), rawMessage("guarded.iterated", "a b: c", "", "NATS/1.0 503 Not  There"));
  for await (const { headers } of subscription) {
    expect([...headers!]).toEqual([["a b", ["c"]]]);
    expect([headers!.code, headers!.description]).toEqual([503, "Not  There"]);
  }
});

it("ends a connection on which the server sends what is no NATS, when it greets or later, and writes nothing of it", async () => {
  const lines = written();
  const early = await fakeServer((socket) => {
    socket.write(greeting());
    socket.once("data", () => socket.write("garbage with a secret\r\n"));
  });
  const error = await connectError(optionsFor(early));
  expect(error).toMatchObject({ code: "nats_unavailable", detail: "The server sent data that is not NATS protocol." });
  const late = await fakeServer((socket) => {
    welcoming(socket);
    socket.once("data", () => setImmediate(() => socket.write("garbage with a secret\r\n")));
  });
  const { connector } = testConnector();
  connector.configure(optionsFor(late));
  const [lost] = await next(connector, "lost");
  expect(lost.detail).toBe("The server sent data that is not NATS protocol.");
  await eventually("our side of the connection is closed", () => late.sockets[0]!.closed);
  expect(lines).toEqual([]);
});
