import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, it } from "vitest";
import { Monitor, type MonitorOptions } from "../../../src/nats/serve/monitor/index.js";
import type { MonitorLimits } from "../../../src/nats/serve/monitor/monitor.js";
import { eventually } from "../../support/eventually.js";
import { noTimersAbove } from "../../support/timers.js";

const silent = () => {};
const logger = { debug: silent, info: silent, warn: silent, error: silent };

/** Short, where a test waits for one. */
const limits: Partial<MonitorLimits> = { headersTimeoutMs: 300, requestTimeoutMs: 600, keepAliveMs: 300 };

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function started(given: Partial<MonitorLimits> = {}, answer: () => Promise<string> = async () => "") {
  const metrics: MonitorOptions["metrics"] = async () => [
    { name: "hawser_shown", type: "gauge", help: await answer(), samples: [] },
  ];
  const listen = { host: "127.0.0.1", port: 0 };
  const monitor = await Monitor.start({ listen, metrics, health: [], logger, limits: given });
  closing.push(() => monitor.stop());
  return monitor;
}

async function connected({ address }: Monitor): Promise<Socket> {
  const socket = connect(address);
  closing.push(() => socket.destroy());
  await once(socket, "connect");
  // A connection that is reset is closed as well.
  socket.on("error", silent);
  return socket;
}

/** Everything that arrives until the connection ends. */
async function lastWords(socket: Socket): Promise<string> {
  return await text(socket).catch(() => "");
}

const request = "GET /healthz HTTP/1.1\r\nHost: monitor\r\n";
const lastRequest = `${request}Connection: close\r\n\r\n`;
const headOf = (answer: string) => answer.split("\r\n", 1)[0];

async function isAnswered(monitor: Monitor): Promise<boolean> {
  const socket = await connected(monitor);
  socket.write(lastRequest);
  return headOf(await lastWords(socket)) === "HTTP/1.1 200 OK";
}

describe("the monitoring port, towards a client that is slow or hostile", () => {
  it("closes a connection on which nothing comes", async () => {
    const socket = await connected(await started(limits));
    expect(headOf(await lastWords(socket))).toBe("HTTP/1.1 408 Request Timeout");
  });

  it("closes one whose request's head does not end", async () => {
    const socket = await connected(await started(limits));
    socket.write(request);
    expect(headOf(await lastWords(socket))).toBe("HTTP/1.1 408 Request Timeout");
  });

  it("closes one that has had its answer and asks for nothing more", async () => {
    const socket = await connected(await started({ keepAliveMs: 300 }));
    socket.write(`${request}\r\n`);
    expect(headOf(await lastWords(socket))).toBe("HTTP/1.1 200 OK");
  });

  it("does not wait for the end of a body", async () => {
    const socket = await connected(await started());
    socket.write(`${request}Content-Length: 1000000000\r\n\r\nno end`);
    const answer = await lastWords(socket);
    expect(headOf(answer)).toBe("HTTP/1.1 200 OK");
    expect(answer).toContain("Connection: close");
  });

  it("refuses a head that is too long, and what is no HTTP", async () => {
    const monitor = await started();
    const long = await connected(monitor);
    long.write(`${request}X-Long: ${"x".repeat(5_000)}\r\n\r\n`);
    expect(headOf(await lastWords(long))).toBe("HTTP/1.1 431 Request Header Fields Too Large");
    const other = await connected(monitor);
    other.write("\x16\x03\x01 this is TLS\r\n\r\n");
    expect(headOf(await lastWords(other))).toBe("HTTP/1.1 400 Bad Request");
  });

  it("closes the connection of a client that does not read what it asked for", async () => {
    // More than the buffers of both ends take.
    const page = "x".repeat(64 * 1024 * 1024);
    const monitor = await started(
      { headersTimeoutMs: 500, requestTimeoutMs: 1_000, maxConnections: 1 },
      async () => page,
    );
    const socket = await connected(monitor);
    socket.write(`${request.replace("/healthz", "/metrics")}\r\n`);
    expect(await isAnswered(monitor)).toBe(false);
    await eventually("there is room again", () => isAnswered(monitor));
    expect((await lastWords(socket)).length).toBeLessThan(page.length);
  });

  it("takes only so many connections at once, and others again when one has ended", async () => {
    const monitor = await started({ maxConnections: 2 });
    const [first] = await Promise.all([connected(monitor), connected(monitor)]);
    expect(await isAnswered(monitor)).toBe(false);
    first?.destroy();
    await eventually("there is room again", () => isAnswered(monitor));
  });

  it("stops at once where connections are idle", async () => {
    const monitor = await started({ keepAliveMs: 60_000, stopTimeoutMs: 60_000 });
    const socket = await connected(monitor);
    socket.write(`${request}\r\n`);
    await once(socket, "readable");
    const ended = lastWords(socket);
    await monitor.stop();
    expect(headOf(await ended)).toBe("HTTP/1.1 200 OK");
    await expect(connected(monitor)).rejects.toThrow("ECONNREFUSED");
  });

  it("stops within its deadline where a client does not go", async () => {
    const monitor = await started({ stopTimeoutMs: 100 }, () => new Promise(() => {}));
    const [asking, mute] = [await connected(monitor), await connected(monitor)];
    asking.write(`${request.replace("/healthz", "/metrics")}\r\n`);
    // The server itself ends neither of them as soon.
    noTimersAbove(100);
    await Promise.all([monitor.stop(), monitor.stop(), lastWords(asking), lastWords(mute)]);
  });

  it("lets an answer that is under way be finished, and then closes its connection", async () => {
    let give = (_: string): void => {};
    let asked = silent;
    const isAsked = new Promise<void>((resolve) => {
      asked = resolve;
    });
    const monitor = await started({ stopTimeoutMs: 60_000 }, () => {
      asked();
      return new Promise((resolve) => {
        give = resolve;
      });
    });
    const socket = await connected(monitor);
    socket.write(`${request.replace("/healthz", "/metrics")}\r\n`);
    await isAsked;
    const stopped = monitor.stop();
    give("the page");
    const answer = await lastWords(socket);
    await stopped;
    expect(headOf(answer)).toBe("HTTP/1.1 200 OK");
    expect(answer).toContain("Connection: close");
    expect(answer).toMatch(/ the page\n# TYPE hawser_shown gauge\n$/);
  });
});
