import net from "node:net";
import { describe, expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import {
  type ConnectionFault,
  type CutStage,
  type Proxy as PostgresProxy,
  startProxy,
} from "../store/support/proxy.js";
import { testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";

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

const waits = "waiting for Postgres; Ctrl-C or SIGTERM ends the wait";

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

  /**
   * Starts it once for each n, with a fault that is set for the n-th time that something happens, until starts end before that.
   * Returns how often the fault came.
   */
  async function startsWith(fault: (proxy: PostgresProxy, nth: number) => Promise<void>): Promise<number> {
    await using database = await testDatabase();
    let times = 0;
    // A question that gets no answer, such as the last one of a connection, is not cut at its answer.
    for (let nth = 1; nth <= times + 3; nth += 1) {
      await using proxy = await startProxy(database.url);
      let hasCome = false;
      void fault(proxy, nth).then(() => {
        hasCome = true;
      });
      await using server = await serve({ databaseUrl: proxy.url, listen: "127.0.0.1:0" });
      expect(server.gatewayUrl).toContain("postgres://");
      if (hasCome) times = nth;
    }
    return times;
  }

  async function startsWithout(fault: ConnectionFault): Promise<void> {
    const connections = await startsWith((proxy, nth) => proxy.failConnection(nth, fault));
    // Those of the preparation, of the definition, of the bridge and of its leadership.
    expect(connections).toBeGreaterThanOrEqual(4);
  }

  it("starts when any one of its connections is reset", () => startsWithout("reset"));
  slowIt("starts when any one of its connections is refused", () => startsWithout("refused"));

  slowIt.each<CutStage>(["before", "sent", "answered"])(
    "starts when its connection ends at any one of its questions to Postgres: %s",
    async (stage) => {
      expect(await startsWith((proxy, nth) => proxy.cutAt("", stage, nth))).toBeGreaterThan(10);
    },
  );

  it("waits for a Postgres that takes no writes, and starts when it does", async () => {
    await using database = await testDatabase();
    const { lines, logger } = keptWarnings();
    await onServer(database.url, `ALTER DATABASE "${database.name}" SET default_transaction_read_only = on`);
    const starting = serve({ databaseUrl: database.url, listen: "127.0.0.1:0", logger });
    await eventually("it says that it waits", async () => lines.some(({ message }) => message === waits));
    expect(lines.find(({ message }) => message === waits)?.reason).toContain("read-only transaction");
    await onServer(
      database.url,
      "SET default_transaction_read_only = off",
      `ALTER DATABASE "${database.name}" RESET default_transaction_read_only`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );
    await (await starting).stop();
  });

  it("does not wait for a schema that is not there, nor for tables that it may not read", async () => {
    await using empty = await testDatabase({ migrated: false });
    await expect(serve({ databaseUrl: empty.url, listen: "127.0.0.1:0" })).rejects.toMatchObject({
      code: "schema_missing",
    });
    await using database = await testDatabase();
    const login = `waiting_${database.name}`;
    await onServer(
      database.url,
      `CREATE ROLE ${login} LOGIN PASSWORD 'waiting' IN ROLE hawser_bridge`,
      `REVOKE SELECT ON hawser_bridge_data.executor_login FROM hawser_bridge`,
    );
    const url = Object.assign(new URL(database.url), { username: login, password: "waiting" });
    try {
      const starting = serve({ databaseUrl: url.href, listen: "127.0.0.1:0" });
      await expect(starting).rejects.toMatchObject({ code: "store_failed" });
    } finally {
      await onServer(database.url, `DROP ROLE ${login}`);
    }
  });

  it("does not wait for a login that Postgres refuses", async () => {
    const url = Object.assign(new URL(testServerUrl()), { username: "nobody_of_this_name" });
    const starting = serve({ databaseUrl: url.href, listen: "127.0.0.1:0" });
    await expect(starting).rejects.toMatchObject({ code: "store_failed" });
  });
});
