import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Msg } from "@nats-io/transport-node";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { CompleteNatsServerOptions, ConnectionOption } from "../../generated/ts/nats-options/index.js";
import { natsDrainMs } from "../../src/nats/connections/draining.js";
import { eventually } from "../support/eventually.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer } from "../support/nats-server.js";
import { next, optionsFor, secretsDirectory, testConnector } from "./support/connectors.js";
import { fakeServer, greeting, welcoming } from "./support/fake-server.js";

describe("configure", () => {
  it("does nothing for the same options, and makes another connection for others", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const connections: unknown[] = [];
    connector.on("connected", (connection) => connections.push(connection));
    connector.configure(optionsFor(server));
    await connector.ready();
    const first = connector.connection!;
    const clientId = first.info!.client_id;

    connector.configure(optionsFor(server));
    await connector.ready();
    expect(connector.connection).toBe(first);
    await first.flush();

    connector.configure(optionsFor(server, { token: "not asked for" }));
    expect(connector.connection).toBeUndefined();
    expect(connector.options?.token).toBe("not asked for");
    await connector.ready();
    expect(connector.connection).not.toBe(first);
    expect(connector.connection!.info!.client_id).not.toBe(clientId);
    expect(connections).toEqual([first, connector.connection]);
    await first.closed();
  });

  it("keeps the connection for other options that do not describe it, which count at once", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    const others = {
      capacity: 7,
      domain: "hub",
      notify_subject: "role.changed",
      patroni_url: "http://127.0.0.1:8008",
      replicas: 3,
      max_role_subscriptions: 7,
      responder_timeout_ms: 77,
    } satisfies Required<Omit<CompleteNatsServerOptions, ConnectionOption>>;
    for (const name of Object.keys(others) as (keyof typeof others)[]) {
      connector.configure(optionsFor(server, { [name]: others[name] }));
      expect(connector.options?.[name]).toBe(others[name]);
      expect(connector.connection, name).toBe(connection);
      await connection.flush();
      connector.configure(optionsFor(server));
      expect(connector.options?.[name]).not.toBe(others[name]);
      expect(connector.connection).toBe(connection);
    }
  });

  it("lets what is running on the old connection end, and closes it then", async () => {
    await using server = await startNatsServer();
    await using other = await startNatsServer();
    await using responder = await natsClient({ servers: server.url });
    const questions: Msg[] = [];
    responder.subscribe("question", { callback: (_, question) => void questions.push(question) });
    await responder.flush();
    const { connector } = testConnector();
    connector.configure(optionsFor(server));
    const old = await connector.connected();
    const ended = connector.use(old);
    const answer = old.request("question", "", { timeout: 10_000 });
    await eventually("the question has come", () => questions.length === 1);
    connector.configure(optionsFor(other));
    await connector.ready();
    expect(connector.connection).not.toBe(old);
    expect(await connector.hasTaken(old)).toBe(true);
    questions[0]!.respond("late");
    expect((await answer).string()).toBe("late");
    expect(old.isDraining()).toBe(false);
    ended();
    await old.closed();
    expect(await connector.hasTaken(old)).toBe(true);
  });

  it.each([
    ["its limit", natsDrainMs, undefined],
    ["what uses it may last, if that is longer", natsDrainMs + 1_000, () => natsDrainMs + 1_000],
  ])("waits no longer than for %s, and not at all when the connector is stopped", async (_, limitMs, usesLastMs) => {
    await using server = await startNatsServer();
    const { connector } = testConnector({ ...(usesLastMs && { usesLastMs }) });
    connector.configure(optionsFor(server));
    const first = await connector.connected();
    connector.use(first);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    await connector.reconnect();
    await vi.advanceTimersByTimeAsync(limitMs - 1);
    // Whoever was to leave would have answered the server's PONG by then.
    await first.flush();
    expect([first.isDraining(), first.isClosed()]).toEqual([false, false]);
    await vi.advanceTimersByTimeAsync(1);
    await first.closed();
    const second = await connector.connected();
    connector.use(second);
    await connector.reconnect();
    await connector.stop();
    expect(second.isClosed()).toBe(true);
  });

  it("closes for undefined, and is no loss", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const losses: unknown[] = [];
    connector.on("lost", (error) => losses.push(error));
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    connector.configure(undefined);
    expect(connector.connection).toBeUndefined();
    await expect(connector.connected()).rejects.toMatchObject({ code: "nats_not_configured" });
    await connection.closed();
    expect(losses).toEqual([]);
  });

  it("sends on the old connection what was published on it", async () => {
    await using server = await startNatsServer();
    await using other = await startNatsServer();
    const { connector } = testConnector();
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    await using reader = await natsClient({ servers: server.url });
    const subscription = reader.subscribe("news", { max: 1000 });
    await reader.flush();
    for (let number = 0; number < 1000; number++) connection.publish("news", `${number}`);
    connector.configure(optionsFor(other));
    let received = 0;
    for await (const _ of subscription) received += 1;
    expect(received).toBe(1000);
    await connector.ready();
    expect(connector.connection!.info!.port).toBe(other.port);
  });

  it("ends the attempt with the options before, and rejects nobody for its sake", async () => {
    const slow = await fakeServer(() => undefined);
    await using server = await startNatsServer();
    const { connector } = testConnector();
    const failures: unknown[] = [];
    connector.on("failed", (error) => failures.push(error));
    connector.configure(optionsFor(slow));
    const ready = connector.ready();
    await eventually("the first attempt is under way", () => slow.sockets.length === 1);
    connector.configure(optionsFor(server));
    await ready;
    const { connection } = connector;
    expect(connection!.info!.port).toBe(server.port);
    await eventually("the first attempt is over", () => slow.sockets[0]!.closed);
    slow.sockets[0]!.write(greeting());
    await connection!.flush();
    expect(connector.connection).toBe(connection);
    expect(failures).toEqual([]);
  });

  it("takes a quick row of options, the last of which counts, and keeps one connection", async () => {
    const server = await fakeServer((socket) => welcoming(socket));
    const { connector } = testConnector();
    for (let number = 0; number < 50; number++) {
      connector.configure(optionsFor(server, { token: `t${number}` }));
      if (number % 8 === 0) connector.configure(undefined);
      if (number % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
      if (number % 11 === 0 && connector.options !== undefined) await connector.ready();
    }
    await connector.ready();
    expect(connector.options?.token).toBe("t49");
    expect(server.sockets.length).toBeGreaterThan(5);
    await eventually("one connection is left", () => server.sockets.filter(({ closed }) => !closed).length === 1);
    await connector.connection!.flush();
  });
});

describe("credentials in files", () => {
  it("are read again when the server cuts off those that it no longer accepts", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "old" }' });
    const secrets = secretsDirectory({ token: "old\n" });
    const { connector } = testConnector({ secretsDirectories: [secrets] });
    connector.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    await connector.connected();
    const lost = next(connector, "lost");
    const again = next(connector, "connected");
    writeFileSync(join(secrets, "token"), "new\n");
    await server.reload('authorization { token: "new" }');
    const [error] = await lost;
    expect(error.code).toBe("nats_unauthorized");
    expect(error.detail).toBe('The server refused the token of option token_path: "Authorization Violation".');
    await again;
  });

  it("are read again by reconnect, which goes on with the old connection if they are wrong", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "right" }' });
    const secrets = secretsDirectory({ token: "right" });
    const { connector } = testConnector({ secretsDirectories: [secrets] });
    connector.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    const first = await connector.connected();

    writeFileSync(join(secrets, "token"), "wrong");
    await expect(connector.reconnect()).rejects.toMatchObject({ code: "nats_unauthorized" });
    writeFileSync(join(secrets, "token"), "");
    await expect(connector.reconnect()).rejects.toMatchObject({ code: "secret_file" });
    expect(connector.connection).toBe(first);
    await first.flush();

    writeFileSync(join(secrets, "token"), "right");
    const losses: unknown[] = [];
    connector.on("lost", (error) => losses.push(error));
    await connector.reconnect();
    expect(connector.connection).not.toBe(first);
    await first.closed();
    expect(losses).toEqual([]);
  });

  it("tell why there is no connection", async () => {
    await using server = await startNatsServer();
    const secrets = secretsDirectory();
    const { connector } = testConnector({ secretsDirectories: [secrets], natsWaitMs: 0 });
    connector.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    await expect(connector.ready()).rejects.toMatchObject({ code: "secret_file" });
    await expect(connector.connected()).rejects.toMatchObject({
      code: "secret_file",
      detail: "token_path: the file does not exist in its directory.",
    });
    writeFileSync(join(secrets, "token"), "any");
    await next(connector, "connected");
  });
});
