import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer } from "node:net";
import { connect } from "@nats-io/transport-node";
import { describe, expect, it, onTestFinished } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { next, optionsFor, testConnector } from "./support/connectors.js";
import { fakeServer, welcoming } from "./support/fake-server.js";

/** Settles as the promise does if it settles without waiting for anything, else says so. */
function atOnce<T>(promise: Promise<T>): Promise<T | "not at once"> {
  return Promise.race([promise, new Promise<"not at once">((resolve) => setImmediate(resolve, "not at once"))]);
}

describe("a connector without options", () => {
  it("says at once that no server is defined", async () => {
    const { connector } = testConnector({ natsWaitMs: 60_000 });
    expect(connector.connection).toBeUndefined();
    expect(connector.options).toBeUndefined();
    for (const ask of [() => connector.connected(), () => connector.ready(), () => connector.reconnect()]) {
      await expect(atOnce<unknown>(ask())).rejects.toMatchObject({ code: "nats_not_configured" });
    }
  });
});

describe("a connector whose server dies", () => {
  it("loses its connection and makes another one when the server is back", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector({ natsWaitMs: 600 });
    connector.configure(optionsFor(server));
    const first = await connector.connected();
    const lost = next(connector, "lost");
    const again = next(connector, "connected");

    await server.kill();
    const [error] = await lost;
    expect(error.code).toBe("nats_unavailable");
    expect(connector.connection).toBeUndefined();

    await expect(connector.connected()).rejects.toMatchObject({
      code: "nats_unavailable",
      detail: "Nothing listens there (ECONNREFUSED).",
    });
    await expect(atOnce(connector.connected())).rejects.toMatchObject({ code: "nats_unavailable" });

    await server.restart();
    const [second] = await again;
    expect(second).not.toBe(first);
    expect(connector.connection).toBe(second);
    expect(first.isClosed()).toBe(true);
    await second.flush();
  });

  it("lets calls wait that come shortly after", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector({ natsWaitMs: 30_000 });
    connector.configure(optionsFor(server));
    await connector.connected();
    const lost = next(connector, "lost");
    await server.kill();
    await lost;
    const waiting = [connector.connected(), connector.connected()];
    await server.restart();
    for (const connection of await Promise.all(waiting)) expect(connection).toBe(connector.connection);
  });

  it("has no connection, logs the same failure as a warning only once, and pauses longer and longer", async () => {
    await using server = await startNatsServer();
    const { connector, logged } = testConnector();
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    await server.kill();
    await connection.closed();
    for (let times = 0; times < 4; times++) await next(connector, "failed");
    expect(connector.connection).toBeUndefined();
    expect(logged.slice(0, 5).map(({ level, message }) => `${level}: ${message}`)).toEqual([
      "info: connected to NATS",
      "warn: lost the connection to NATS",
      "warn: cannot connect to NATS",
      "debug: cannot connect to NATS",
      "debug: cannot connect to NATS",
    ]);
    const pauses = logged.flatMap(({ details }) => ("retryMs" in details ? [details.retryMs as number] : []));
    for (const [index, least] of [100, 200, 400, 800].entries()) {
      expect(pauses[index]).toBeGreaterThanOrEqual(least);
      expect(pauses[index]).toBeLessThanOrEqual(2 * least);
    }
  });
});

describe("a server that announces its shutdown", () => {
  it("is left for the next one without a gap", async () => {
    await using old = await startNatsServer();
    await using successor = await startNatsServer();
    let target = old;
    // What a name that stands for several servers does.
    const balancer = createServer((socket) => {
      const inner = connectTcp(target.port, target.host);
      socket.pipe(inner).pipe(socket);
      for (const end of [socket, inner]) end.on("error", () => undefined);
    });
    balancer.listen(0, "127.0.0.1");
    await once(balancer, "listening");
    onTestFinished(() => void balancer.close());
    const { port } = balancer.address() as AddressInfo;

    const { connector } = testConnector();
    const losses: unknown[] = [];
    connector.on("lost", (error) => losses.push(error));
    connector.configure(optionsFor({ host: "127.0.0.1", port }));
    const first = await connector.connected();
    expect(first.info!.port).toBe(old.port);
    const moved = next(connector, "connected");
    target = successor;
    old.signal("SIGUSR2");
    const [second] = await moved;
    expect(second.info!.port).toBe(successor.port);
    await first.closed();
    expect(losses).toEqual([]);
  });
});

describe("an operation that the server does not permit", () => {
  it("is not asked for by connecting, and is told when it was tried", async () => {
    await using server = await startNatsServer({
      config:
        'authorization { users: [{ user: "a", password: "b", permissions: { publish: { deny: ">" }, subscribe: "in.>" } }] }',
    });
    const { connector } = testConnector();
    const refusals: unknown[] = [];
    connector.on("refused", (refusal) => refusals.push(refusal));
    connector.configure(optionsFor(server, { username: "a", password: "b" }));
    const connection = await connector.connected();
    connection.subscribe("in.orders", { callback: () => undefined });
    await connection.flush();
    await connector.reconnect();
    await connector.connection!.flush();
    expect(refusals).toEqual([]);
    expect(server.log()).not.toContain("Violation");

    connector.connection!.publish("out.orders");
    connector.connection!.subscribe("secret", { queue: "workers", callback: () => undefined });
    await eventually("both refusals are told", () => refusals.length === 2);
    expect(refusals).toEqual([
      expect.objectContaining({ operation: "publish", subject: "out.orders" }),
      expect.objectContaining({ operation: "subscription", subject: "secret", queue: "workers" }),
    ]);
    expect(connector.connection!.isClosed()).toBe(false);
  });
});

describe("a waiting caller", () => {
  it("can leave", async () => {
    const silent = await fakeServer(() => undefined);
    const { connector } = testConnector({ natsWaitMs: 60_000 });
    connector.configure(optionsFor(silent));
    const leaving = new AbortController();
    const { signal } = leaving;
    const waiting = Promise.allSettled([
      connector.ready(signal),
      connector.connected(signal),
      connector.reconnect(signal),
    ]);
    leaving.abort(new Error("enough"));
    for (const outcome of await waiting) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { message: "enough" } });
    }
    await expect(connector.ready(signal)).rejects.toThrow("enough");
  });
});

describe("listeners", () => {
  it("may configure the connector again", async () => {
    const refusing = await fakeServer((socket) => socket.end());
    const first = await fakeServer((socket) => welcoming(socket));
    const second = await fakeServer((socket) => welcoming(socket, { server_id: "SECOND" }));
    const { connector } = testConnector();
    connector.on("failed", () => connector.configure(optionsFor(first)));
    connector.on("connected", () => connector.configure(optionsFor(second)));
    connector.configure(optionsFor(refusing));
    await expect(connector.ready()).rejects.toMatchObject({ code: "nats_unavailable" });
    await connector.ready();
    await connector.ready();
    expect(connector.connection!.info!.server_id).toBe("SECOND");
  });

  it("that fail harm nobody, and those that were taken away receive nothing", async () => {
    const server = await fakeServer((socket) => welcoming(socket));
    const { connector, logged } = testConnector();
    const heard: string[] = [];
    connector.on("connected", () => {
      throw new Error("of the listener");
    });
    connector.on("connected", () => heard.push("second"));
    connector.on("connected", () => heard.push("gone"))();
    connector.configure(optionsFor(server));
    await connector.ready();
    expect(heard).toEqual(["second"]);
    expect(logged.filter(({ level }) => level === "error")).toHaveLength(1);
  });
});

it("leaves nats.js to those who use it beside, also while several connectors connect", async () => {
  await using server = await startNatsServer();
  const connectors = Array.from({ length: 5 }, () => testConnector().connector);
  for (const connector of connectors) connector.configure(optionsFor(server));
  const others = Array.from({ length: 5 }, () => {
    return connect({ servers: server.url, reconnectTimeWait: 10, maxReconnectAttempts: -1 });
  });
  const connections = await Promise.all([...others, ...connectors.map((connector) => connector.connected())]);
  const back = Promise.all([
    ...connectors.map((connector) => next(connector, "connected")),
    ...connections.slice(0, 5).map(async (connection) => {
      for await (const { type } of connection.status()) if (type === "reconnect") return;
    }),
  ]);
  await server.kill();
  await server.restart();
  await back;
  for (const connection of connections.slice(0, 5)) {
    await connection.flush();
    await connection.close();
  }
});
