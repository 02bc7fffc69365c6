import net from "node:net";
import { describe, expect, it } from "vitest";
import { serve } from "../../src/serve/index.js";
import { testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";

interface Line {
  readonly message: string;
  readonly reason: string;
}

/** A logger that keeps its warnings. */
function keptWarnings() {
  const lines: Line[] = [];
  const ignore = (): void => undefined;
  const warn = ({ problem = "" }: { readonly problem?: string }, message: string): void => {
    lines.push({ message, reason: problem });
  };
  return { lines, logger: { debug: ignore, info: ignore, error: ignore, warn } };
}

/** An address before Postgres that ends each connection until Postgres has come. */
async function laterServer(databaseUrl: string) {
  const target = new URL(databaseUrl);
  let isThere = false;
  const server = net.createServer((client) => {
    client.on("error", () => undefined);
    if (!isThere) {
      client.destroy();
      return;
    }
    const upstream = net.connect(Number(target.port), target.hostname);
    upstream.on("error", () => undefined);
    upstream.on("close", () => client.destroy());
    client.on("close", () => upstream.destroy());
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  const url = Object.assign(new URL(databaseUrl), { hostname: "127.0.0.1", port: String(port) });
  return {
    url: url.href,
    come: () => {
      isThere = true;
    },
    close: () => server.close(),
  };
}

const waits = "waiting for Postgres, which cannot be reached; Ctrl-C or SIGTERM ends the wait";

describe("hawser serve", () => {
  it("waits for a Postgres that is away when it starts, says so once, and then answers", async () => {
    await using database = await testDatabase();
    const server = await laterServer(database.url);
    const { lines, logger } = keptWarnings();
    const starting = serve({ databaseUrl: server.url, listen: "127.0.0.1:0", logger });
    await eventually("it says that it waits", async () => lines.length > 0);
    expect(lines[0]?.message).toBe(waits);
    server.come();
    const running = await starting;
    expect(running.gatewayUrl).toContain("postgres://");
    expect(lines.filter(({ message }) => message.startsWith("waiting"))).toHaveLength(1);
    await running.stop();
    server.close();
  });

  it("says why Postgres cannot be reached, and can be stopped while it waits", async () => {
    // Nobody listens on port 1.
    const url = Object.assign(new URL(testServerUrl()), { hostname: "127.0.0.1", port: "1" });
    const { lines, logger } = keptWarnings();
    const stop = new AbortController();
    const starting = serve({ databaseUrl: url.href, listen: "127.0.0.1:0", logger, signal: stop.signal });
    await eventually("it says that it waits", async () => lines.length > 0);
    expect(lines[0]).toEqual({ message: waits, reason: expect.stringContaining("ECONNREFUSED 127.0.0.1:1") });
    stop.abort(new Error("told to stop"));
    await expect(starting).rejects.toThrow("told to stop");
  });

  it("does not wait for a login that Postgres refuses", async () => {
    const url = Object.assign(new URL(testServerUrl()), { username: "nobody_of_this_name" });
    const starting = serve({ databaseUrl: url.href, listen: "127.0.0.1:0" });
    await expect(starting).rejects.toMatchObject({ code: "store_failed" });
  });
});
