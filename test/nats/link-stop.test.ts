import type { Socket } from "node:net";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { eventually } from "../support/eventually.js";
import { natsClient } from "../support/nats-client.js";
import { startNatsServer } from "../support/nats-server.js";
import { startProgram } from "../support/program.js";
import { fakeServer, greeting } from "./support/fake-server.js";
import { optionsFor, testLink } from "./support/links.js";

const { natsConnectTimeoutMs } = gatewayConstants;

describe("stop", () => {
  it("sends what was published, and closes", async () => {
    await using server = await startNatsServer();
    const { link } = testLink();
    link.configure(optionsFor(server));
    const connection = await link.connected();
    await using reader = await natsClient({ servers: server.url });
    const count = 15_000;
    const subscription = reader.subscribe("news", { max: count });
    await reader.flush();
    // More than fits on the way to a server that does not read.
    server.signal("SIGSTOP");
    for (let number = 0; number < count; number++) connection.publish("news", new Uint8Array(1000));
    const stopped = Promise.all([link.stop(), link.stop()]);
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
    const { link } = testLink({ natsWaitMs: 60_000 });
    link.configure(optionsFor(silent));
    const waiting = Promise.allSettled([link.ready(), link.connected(), link.reconnect()]);
    await eventually("an attempt is under way", () => silent.sockets.length > 0);
    const before = performance.now();
    await link.stop();
    // And not when the attempt is over.
    expect(performance.now() - before).toBeLessThan(natsConnectTimeoutMs - 500);
    for (const outcome of await waiting) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "nats_unavailable" } });
    }
    await expect(link.connected()).rejects.toThrow("it is being closed");
    link.configure(optionsFor(silent, { domain: "later" }));
    expect(link.connection).toBeUndefined();
    await eventually("the sockets are closed", () => silent.sockets.every((socket) => socket.closed));
  });

  it("waits for a server that hangs no longer than for one to connect to", async () => {
    await using server = await startNatsServer();
    const { link } = testLink();
    link.configure(optionsFor(server));
    const connection = await link.connected();
    server.signal("SIGSTOP");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    onTestFinished(() => void vi.useRealTimers());
    const stopped = link.stop();
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
      "test/nats/programs/stop-link.ts",
      [server, silent, dead].map(({ port }) => `${port}`),
    );
    expect(await program.ended).toMatchObject({ status: 0, stdout: "stopped 4\n", stderr: "" });
  });
});
