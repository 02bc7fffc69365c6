import net from "node:net";
import { expect, it } from "vitest";
import { serve } from "../../src/serve/index.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { ownPort } from "../support/own-port.js";

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

/** A port of this machine at which nothing listens, and a server that comes there later. */
async function laterServer(databaseUrl: string) {
  const target = new URL(databaseUrl);
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.pipe(upstream).pipe(client);
  });
  const listen = (port: number) => new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const port = await ownPort();
  const url = Object.assign(new URL(databaseUrl), { hostname: "127.0.0.1", port: String(port) });
  return { url: url.href, port, come: () => listen(port), close: () => server.close() };
}

it("hawser serve waits for a Postgres that is away when it starts, says so, and then answers", async () => {
  await using database = await testDatabase();
  const server = await laterServer(database.url);
  const { lines, logger } = keptWarnings();
  const starting = serve({
    databaseUrl: server.url,
    listen: "127.0.0.1:0",
    monitor: "127.0.0.1:0",
    logger,
  });
  await eventually("it says that it waits", async () => lines.length > 0);
  expect(lines[0]?.message).toBe("waiting for Postgres, which cannot be reached; Ctrl-C or SIGTERM ends the wait");
  expect(lines[0]?.reason).toContain(`ECONNREFUSED 127.0.0.1:${server.port}`);
  await server.come();
  const running = await starting;
  expect(running.gatewayUrl).toContain("postgres://");
  expect(lines.filter(({ message }) => message.startsWith("waiting"))).toHaveLength(1);
  await running.stop();
  server.close();
});

it("hawser serve can be stopped while it waits for Postgres", async () => {
  await using database = await testDatabase();
  const { url } = await laterServer(database.url);
  const { lines, logger } = keptWarnings();
  const stop = new AbortController();
  const starting = serve({ databaseUrl: url, listen: "127.0.0.1:0", logger, signal: stop.signal });
  await eventually("it says that it waits", async () => lines.length > 0);
  stop.abort(new Error("told to stop"));
  await expect(starting).rejects.toThrow("told to stop");
});

it("hawser serve does not wait for a login that Postgres refuses", async () => {
  await using database = await testDatabase();
  const url = Object.assign(new URL(database.url), { username: "nobody_of_this_name" });
  const starting = serve({ databaseUrl: url.href, listen: "127.0.0.1:0" });
  await expect(starting).rejects.toMatchObject({ code: "store_failed" });
});
