import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Msg } from "@nats-io/transport-node";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { eventually } from "../support/eventually.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer } from "../support/nats-server.js";
import { fakeServer, greeting, welcoming } from "./support/fake-server.js";
import { next, optionsFor, secretsDirectory, testLink } from "./support/links.js";

const { natsFarewellMs } = gatewayConstants;

describe("configure", () => {
  it("does nothing for the same options, and makes another connection for others", async () => {
    await using server = await startNatsServer();
    const { link } = testLink();
    const connections: unknown[] = [];
    link.on("connected", (connection) => connections.push(connection));
    link.configure(optionsFor(server));
    await link.ready();
    const first = link.connection!;
    const clientId = first.info!.client_id;

    link.configure(optionsFor(server));
    await link.ready();
    expect(link.connection).toBe(first);
    await first.flush();

    link.configure(optionsFor(server, { token: "not asked for" }));
    expect(link.connection).toBeUndefined();
    expect(link.options?.token).toBe("not asked for");
    await link.ready();
    expect(link.connection).not.toBe(first);
    expect(link.connection!.info!.client_id).not.toBe(clientId);
    expect(connections).toEqual([first, link.connection]);
    await first.closed();
  });

  it("keeps the connection for other options that do not describe it, which count at once", async () => {
    await using server = await startNatsServer();
    const { link } = testLink();
    link.configure(optionsFor(server));
    const connection = await link.connected();
    for (const [name, value] of [
      ["capacity", 7],
      ["domain", "hub"],
      ["notify_subject", "role.changed"],
      ["patroni_url", "http://127.0.0.1:8008"],
      ["responder_timeout_ms", 77],
    ] as const) {
      link.configure(optionsFor(server, { [name]: value }));
      expect(link.options?.[name]).toBe(value);
      expect(link.connection, name).toBe(connection);
      await connection.flush();
      link.configure(optionsFor(server));
      expect(link.options?.[name]).not.toBe(value);
      expect(link.connection).toBe(connection);
    }
  });

  it("lets what is under way on the old connection end, and closes it then", async () => {
    await using server = await startNatsServer();
    await using other = await startNatsServer();
    await using responder = await natsClient({ servers: server.url });
    const questions: Msg[] = [];
    responder.subscribe("question", { callback: (_, question) => void questions.push(question) });
    await responder.flush();
    const { link } = testLink();
    link.configure(optionsFor(server));
    const old = await link.connected();
    const ended = link.use(old);
    const answer = old.request("question", "", { timeout: 10_000 });
    await eventually("the question has come", () => questions.length === 1);
    link.configure(optionsFor(other));
    await link.ready();
    expect(link.connection).not.toBe(old);
    expect(await link.hasTaken(old)).toBe(true);
    questions[0]!.respond("late");
    expect((await answer).string()).toBe("late");
    expect(old.isDraining()).toBe(false);
    ended();
    await old.closed();
    expect(await link.hasTaken(old)).toBe(true);
  });

  it.each([
    ["its limit", natsFarewellMs, undefined],
    ["what uses it may last, if that is longer", natsFarewellMs + 1_000, () => natsFarewellMs + 1_000],
  ])("waits no longer than for %s, and not at all when the link is stopped", async (_, limitMs, usesLastMs) => {
    await using server = await startNatsServer();
    const { link } = testLink({ ...(usesLastMs && { usesLastMs }) });
    link.configure(optionsFor(server));
    const first = await link.connected();
    link.use(first);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    await link.reconnect();
    await vi.advanceTimersByTimeAsync(limitMs - 1);
    // Whoever was to leave would have answered the server's PONG by then.
    await first.flush();
    expect([first.isDraining(), first.isClosed()]).toEqual([false, false]);
    await vi.advanceTimersByTimeAsync(1);
    await first.closed();
    const second = await link.connected();
    link.use(second);
    await link.reconnect();
    await link.stop();
    expect(second.isClosed()).toBe(true);
  });

  it("closes for undefined, and is no loss", async () => {
    await using server = await startNatsServer();
    const { link } = testLink();
    const losses: unknown[] = [];
    link.on("lost", (error) => losses.push(error));
    link.configure(optionsFor(server));
    const connection = await link.connected();
    link.configure(undefined);
    expect(link.connection).toBeUndefined();
    await expect(link.connected()).rejects.toMatchObject({ code: "nats_not_configured" });
    await connection.closed();
    expect(losses).toEqual([]);
  });

  it("sends on the old connection what was published on it", async () => {
    await using server = await startNatsServer();
    await using other = await startNatsServer();
    const { link } = testLink();
    link.configure(optionsFor(server));
    const connection = await link.connected();
    await using reader = await natsClient({ servers: server.url });
    const subscription = reader.subscribe("news", { max: 1000 });
    await reader.flush();
    for (let number = 0; number < 1000; number++) connection.publish("news", `${number}`);
    link.configure(optionsFor(other));
    let received = 0;
    for await (const _ of subscription) received += 1;
    expect(received).toBe(1000);
    await link.ready();
    expect(link.connection!.info!.port).toBe(other.port);
  });

  it("ends the attempt with the options before, and rejects nobody for its sake", async () => {
    const slow = await fakeServer(() => undefined);
    await using server = await startNatsServer();
    const { link } = testLink();
    const failures: unknown[] = [];
    link.on("failed", (error) => failures.push(error));
    link.configure(optionsFor(slow));
    const ready = link.ready();
    await eventually("the first attempt is under way", () => slow.sockets.length === 1);
    link.configure(optionsFor(server));
    await ready;
    const { connection } = link;
    expect(connection!.info!.port).toBe(server.port);
    await eventually("the first attempt is over", () => slow.sockets[0]!.closed);
    slow.sockets[0]!.write(greeting());
    await connection!.flush();
    expect(link.connection).toBe(connection);
    expect(failures).toEqual([]);
  });

  it("takes a quick row of options, the last of which counts, and keeps one connection", async () => {
    const server = await fakeServer((socket) => welcoming(socket));
    const { link } = testLink();
    for (let number = 0; number < 50; number++) {
      link.configure(optionsFor(server, { token: `t${number}` }));
      if (number % 8 === 0) link.configure(undefined);
      if (number % 5 === 0) await new Promise((resolve) => setImmediate(resolve));
      if (number % 11 === 0 && link.options !== undefined) await link.ready();
    }
    await link.ready();
    expect(link.options?.token).toBe("t49");
    expect(server.sockets.length).toBeGreaterThan(5);
    await eventually("one connection is left", () => server.sockets.filter(({ closed }) => !closed).length === 1);
    await link.connection!.flush();
  });
});

describe("credentials in files", () => {
  it("are read anew when the server cuts off those that it no longer accepts", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "old" }' });
    const secrets = secretsDirectory({ token: "old\n" });
    const { link } = testLink({ secretsDirectories: [secrets] });
    link.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    await link.connected();
    const lost = next(link, "lost");
    const again = next(link, "connected");
    writeFileSync(join(secrets, "token"), "new\n");
    await server.reload('authorization { token: "new" }');
    const [error] = await lost;
    expect(error.code).toBe("nats_unauthorized");
    expect(error.detail).toBe('The server refused the token of option token_path: "Authorization Violation".');
    await again;
  });

  it("are read anew by reconnect, which goes on with the old connection where they are wrong", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "right" }' });
    const secrets = secretsDirectory({ token: "right" });
    const { link } = testLink({ secretsDirectories: [secrets] });
    link.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    const first = await link.connected();

    writeFileSync(join(secrets, "token"), "wrong");
    await expect(link.reconnect()).rejects.toMatchObject({ code: "nats_unauthorized" });
    writeFileSync(join(secrets, "token"), "");
    await expect(link.reconnect()).rejects.toMatchObject({ code: "secret_file" });
    expect(link.connection).toBe(first);
    await first.flush();

    writeFileSync(join(secrets, "token"), "right");
    const losses: unknown[] = [];
    link.on("lost", (error) => losses.push(error));
    await link.reconnect();
    expect(link.connection).not.toBe(first);
    await first.closed();
    expect(losses).toEqual([]);
  });

  it("tell why there is no connection", async () => {
    await using server = await startNatsServer();
    const secrets = secretsDirectory();
    const { link } = testLink({ secretsDirectories: [secrets], natsWaitMs: 0 });
    link.configure(optionsFor(server, { token_path: join(secrets, "token") }));
    await expect(link.ready()).rejects.toMatchObject({ code: "secret_file" });
    await expect(link.connected()).rejects.toMatchObject({
      code: "secret_file",
      detail: "token_path: there is no such file in its directory.",
    });
    writeFileSync(join(secrets, "token"), "any");
    await next(link, "connected");
  });
});
