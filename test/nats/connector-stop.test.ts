import type { Socket } from "node:net";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { natsConnectTimeoutMs } from "../../src/nats/connections/connect.js";
import { eventually } from "../support/eventually.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer } from "../support/nats-server.js";
import { startProgram } from "../support/program.js";
import { noTimersAbove } from "../support/timers.js";
import { optionsFor, testConnector } from "./support/connectors.js";
import { fakeServer, greeting } from "./support/fake-server.js";

describe("stop", () => {
  it("sends what was published, and closes", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    await using reader = await natsClient({ servers: server.url });
    const count = 15_000;
    const subscription = reader.subscribe("news", { max: count });
    await reader.flush();
    // More than fits on the way to a server that does not read.
    server.signal("SIGSTOP");
    for (let number = 0; number < count; number++) connection.publish("news", new Uint8Array(1000));
    const stopped = Promise.all([connector.stop(), connector.stop()]);
    await new Promise((resolve) => setImmediate(resolve));
    server.signal("SIGCONT");
    await stopped;
    expect(connection.isClosed()).toBe(true);
    let received = 0;
    for await (const _ of subscription) received += 1;
    expect(received).toBe(count);
  });

  it.each([
    { when: "that waits for the server's greeting", behave: () => undefined },
    { when: "that waits for the answer to ours", behave: (socket: Socket) => socket.write(greeting()) },
  ])("ends an attempt $when, and those who wait for it", async ({ behave }) => {
    const silent = await fakeServer(behave);
    const { connector } = testConnector({ natsWaitMs: 60_000 });
    // The stop ends the attempt, not the time limit of the attempt.
    noTimersAbove(natsConnectTimeoutMs - 1);
    connector.configure(optionsFor(silent));
    const waiting = Promise.allSettled([connector.ready(), connector.connected(), connector.reconnect()]);
    await eventually("an attempt is under way", () => silent.sockets.length > 0);
    await connector.stop();
    for (const outcome of await waiting) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "nats_unavailable" } });
    }
    await expect(connector.connected()).rejects.toThrow("is being closed");
    connector.configure(optionsFor(silent, { domain: "later" }));
    expect(connector.connection).toBeUndefined();
    await eventually("the sockets are closed", () => silent.sockets.every((socket) => socket.closed));
  });

  it("waits for a server that hangs no longer than for one to connect to", async () => {
    await using server = await startNatsServer();
    const { connector } = testConnector();
    connector.configure(optionsFor(server));
    const connection = await connector.connected();
    server.signal("SIGSTOP");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const stopped = connector.stop();
    await vi.advanceTimersByTimeAsync(natsConnectTimeoutMs - 1);
    expect(connection.isClosed()).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await stopped;
    expect(connection.isClosed()).toBe(true);
  });

  it("leaves nothing that keeps the process alive, in whatever state it comes", async () => {
    await using server = await startNatsServer();
    const silent = await fakeServer(() => undefined);
    const dead = await fakeServer((socket) => socket.destroy());
    const program = startProgram(
      "test/nats/programs/stop-connector.ts",
      [server, silent, dead].map(({ port }) => `${port}`),
    );
    expect(await program.ended).toMatchObject({ status: 0, stdout: "stopped 4\n", stderr: "" });
  });
});
