import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { HawserError } from "../../../src/foundation/errors/index.js";
import type { HealthCheck } from "../../../src/foundation/monitor/index.js";
import { Monitor, type MonitorOptions, ServeMetrics } from "../../../src/nats/serve/monitor/index.js";
import { parsePrometheus } from "../../monitor/prometheus-text.js";
import { serveCounters } from "./counters.js";

interface Line {
  readonly details: object;
  readonly message: string;
}

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function optionsOf(given: Partial<MonitorOptions> = {}): MonitorOptions & { readonly errors: Line[] } {
  const served = new ServeMetrics({ version: "1.2.3", database: "app", counters: serveCounters });
  closing.push(() => served.close());
  const metrics = () => served.readAll();
  const errors: Line[] = [];
  const silent = () => {};
  const error = (details: object, message: string): void => void errors.push({ details, message });
  const logger = { debug: silent, info: silent, warn: silent, error };
  return { listen: { host: "127.0.0.1", port: 0 }, metrics, health: [], logger, ...given, errors };
}

async function started(options: MonitorOptions): Promise<{ readonly monitor: Monitor; readonly url: string }> {
  const monitor = await Monitor.start(options);
  closing.push(() => monitor.stop());
  const { host, port } = monitor.address;
  return { monitor, url: `http://${host.includes(":") ? `[${host}]` : host}:${port}` };
}

describe("the monitoring port", () => {
  it("gives the metrics to whoever scrapes them", async () => {
    const { url } = await started(optionsOf());
    const response = await fetch(`${url}/metrics`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const families = parsePrometheus(await response.text());
    expect(families.get("hawser_gateway_sessions")?.samples[0]?.value).toBe(3);
    expect(families.get("hawser_build_info")?.samples[0]?.labels).toEqual({ version: "1.2.3", database: "app" });
  });

  it("answers probes by what the checks say then", async () => {
    const states = { postgres: true, nats: true };
    const since = new Date("2025-11-20T16:00:00Z");
    const health: HealthCheck[] = [
      { name: "postgres", affects: "health", state: () => ({ ok: states.postgres, since }) },
      { name: "nats_gateway", affects: "readiness", state: () => ({ ok: states.nats, detail: "some words" }) },
    ];
    const { url } = await started(optionsOf({ health }));
    const statuses = () =>
      Promise.all(["healthz", "readyz"].map(async (page) => (await fetch(`${url}/${page}`)).status));
    expect(await statuses()).toEqual([200, 200]);
    states.nats = false;
    expect(await statuses()).toEqual([200, 503]);
    states.postgres = false;
    expect(await statuses()).toEqual([503, 503]);

    const response = await fetch(`${url}/healthz`);
    expect(response.headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(await response.json()).toEqual({
      status: "failing",
      checks: [
        { name: "postgres", ok: false, affects: "health", since: "2025-11-20T16:00:00.000Z" },
        { name: "nats_gateway", ok: false, affects: "readiness", detail: "some words" },
      ],
    });
  });

  it("takes a query after the path, and answers HEAD as GET without its body", async () => {
    const { url } = await started(optionsOf());
    expect((await fetch(`${url}/healthz?verbose`)).status).toBe(200);
    const [head, get] = [await fetch(`${url}/healthz`, { method: "HEAD" }), await fetch(`${url}/healthz`)];
    expect(head.status).toBe(200);
    expect(head.headers.get("content-length")).toBe(String((await get.text()).length));
    expect(await head.text()).toBe("");
  });

  it("says what there is where somebody asks for something else", async () => {
    const { url } = await started(optionsOf());
    for (const path of ["/", "/metric", "/metrics/", "/constructor", "//", "/%6detrics"]) {
      const response = await fetch(url + path);
      expect(response.status).toBe(404);
      expect(await response.text()).toBe("Not found. The pages are /metrics, /healthz and /readyz.\n");
    }
  });

  it("answers no other methods, and closes the connection of whoever sends a body", async () => {
    const { url } = await started(optionsOf());
    for (const method of ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
      const response = await fetch(`${url}/metrics`, {
        method,
        ...(method === "POST" && { body: "x".repeat(100_000) }),
      });
      expect(response.status).toBe(405);
      expect(response.headers.get("allow")).toBe("GET, HEAD");
      expect(response.headers.get("connection")).toBe(method === "POST" ? "close" : "keep-alive");
      expect(await response.text()).toBe("Only GET and HEAD are answered.\n");
    }
  });

  it("says 500 and logs why if the metrics cannot be read", async () => {
    const cause = new Error("password=hunter2");
    const options = optionsOf({ metrics: () => Promise.reject(cause) });
    const { url } = await started(options);
    const response = await fetch(`${url}/metrics`);
    expect(response.status).toBe(500);
    expect(await response.text()).toBe("The page could not be rendered; the log of `hawser serve` says why.\n");
    expect(options.errors).toEqual([
      { details: { err: cause, path: "/metrics" }, message: "failed to render a monitoring page" },
    ]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it("listens on IPv6, too", async () => {
    const { url, monitor } = await started(optionsOf({ listen: { host: "::1", port: 0 } }));
    expect(monitor.address.host).toBe("::1");
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it("names the address that it cannot have", async () => {
    const taken = createServer();
    taken.listen(0, "127.0.0.1");
    await once(taken, "listening");
    closing.push(() => taken.close());
    const { port } = taken.address() as AddressInfo;
    const failure = await Monitor.start(optionsOf({ listen: { host: "127.0.0.1", port } })).catch((error) => error);
    expect(failure instanceof HawserError && failure.code).toBe("bind_failed");
    expect(failure.message).toContain(`the monitoring port cannot be opened at 127.0.0.1:${port}: `);
    expect(failure.message).toContain("EADDRINUSE");
    const foreign = await Monitor.start(optionsOf({ listen: { host: "2001:db8::1", port: 9 } })).catch(
      (error) => error,
    );
    expect(foreign.code).toBe("bind_failed");
    expect(foreign.message).toContain("at [2001:db8::1]:9: ");
  });

  it("does not listen any more if its start was given up meanwhile", async () => {
    const [before, meanwhile] = [new AbortController(), new AbortController()];
    before.abort(new Error("given up"));
    await expect(Monitor.start(optionsOf(), before.signal)).rejects.toThrow("given up");
    const free = await started(optionsOf());
    const listen = free.monitor.address;
    await free.monitor.stop();
    const starting = Monitor.start(optionsOf({ listen }), meanwhile.signal);
    meanwhile.abort(new Error("given up meanwhile"));
    await expect(starting).rejects.toThrow("given up meanwhile");
    await started(optionsOf({ listen }));
  });
});
