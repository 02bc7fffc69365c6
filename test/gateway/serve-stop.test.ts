/**
 * Start, refused start, and stop of `serve`.
 */
import { once } from "node:events";
import { type AddressInfo, connect, createServer as createTcpServer, type Server } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HawserServer, type ServeOptions, serve as startServer } from "../../src/nats/serve/index.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { type NatsDatabase, natsDatabase, patience } from "../support/gateway.js";

/** Errors of a start before it has connected to a database. */
async function failure(options: ServeOptions): Promise<unknown> {
  const starting = startServer({ databaseUrl: "postgres://nobody@127.0.0.1:1/none", ...options });
  return await starting.then(
    async (server) => {
      await server.stop();
      throw new Error("it has started");
    },
    (error: unknown) => error,
  );
}

/**
 * Stands between Postgres and a gateway, and passes everything on but the end of the connection. What the client says
 * after that end closes it, as a process does that has gone.
 */
async function endless(): Promise<{ readonly address: string; leadTo(port: number): void; close(): void }> {
  let target: number | undefined;
  const server = createTcpServer((socket) => {
    const up = connect({ port: target!, host: "127.0.0.1", allowHalfOpen: true });
    let isOver = false;
    up.on("data", (chunk) => socket.write(chunk)).on("error", () => undefined);
    up.on("end", () => {
      isOver = true;
    });
    socket.on("data", (chunk) => (isOver ? socket.destroy() : up.write(chunk))).on("error", () => undefined);
    socket.on("close", () => up.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    leadTo: (port) => {
      target = port;
    },
    close: () => void server.close(),
  };
}

function listening(): Promise<{ readonly port: number; close(): void }> {
  return new Promise((resolve) => {
    const server: Server = createTcpServer().listen(0, "127.0.0.1", () => {
      const address = server.address() as { readonly port: number };
      resolve({ port: address.port, close: () => void server.close() });
    });
  });
}

describe("a start", () => {
  it.each([
    [{ listen: "0.0.0.0:0" }, "0.0.0.0:0"],
    [{ listen: "[::]:0" }, "[::]:0"],
    [{ listen: "10.1.2.3:5434" }, "10.1.2.3:5434"],
    [{ listen: "127.0.0.1:0", advertise: "db.example.org:5434" }, "db.example.org:5434"],
  ])("is refused without TLS beyond loopback: %j", async (options, named) => {
    expect(await failure(options)).toMatchObject({
      code: "plaintext_refused",
      message: expect.stringContaining(`${named} is not a loopback address`),
    });
  });

  it("is refused with a setting that breaks its rule, which is named", async () => {
    for (const [options, words] of [
      [{ callTimeoutMs: 99 }, "callTimeoutMs is 99"],
      [{ tuning: { maxCallTimeoutMs: 1.5 } }, "maxCallTimeoutMs is 1.5"],
      [{ tuning: { maxRequestBytes: 1 } }, "maxRequestBytes is 1"],
      [{ tuning: { maxResponseBytes: Number.NaN } }, "maxResponseBytes is NaN"],
      [{ tuning: { maxSessions: 0 } }, "maxSessions is 0"],
      [{ tuning: { natsWaitMs: -1 } }, "natsWaitMs is -1"],
      [{ stopTimeoutMs: 1e9 }, "stopTimeoutMs is 1000000000"],
      [{ listen: "" }, 'listen is ""'],
      [{ listen: "127.0.0.1" }, "127.0.0.1"],
      [{ listen: "127.0.0.1:65536" }, "65536"],
      [{ advertise: "nowhere" }, "nowhere"],
    ] as const) {
      expect(await failure(options)).toMatchObject({
        code: "invalid_argument",
        message: expect.stringContaining(words),
      });
    }
  });

  it("is refused where somebody else listens, and leaves no trace", async () => {
    await using database = await testDatabase();
    const taken = await listening();
    const options = { databaseUrl: database.url, listen: `127.0.0.1:${taken.port}` };
    expect(await failure(options)).toMatchObject({
      code: "bind_failed",
      message: expect.stringContaining(`${taken.port}`),
    });
    taken.close();
    const serve = await startServer(options);
    await serve.stop();
  });

  it("ends when its signal is aborted", async () => {
    await using database = await testDatabase();
    const signal = AbortSignal.abort(new Error("not now"));
    const error = await failure({ databaseUrl: database.url, listen: "127.0.0.1:0", signal });
    expect(error).toMatchObject({ message: "not now" });
  });
});

describe("a stop", () => {
  let gateway: NatsDatabase;
  beforeAll(async () => {
    gateway = await natsDatabase();
  });
  afterAll(() => gateway?.[Symbol.asyncDispose]());

  const serving = async (options: ServeOptions = {}, onStarted: (serve: HawserServer) => void = () => undefined) => {
    const databaseUrl = gateway.database.url;
    const serve = await startServer({ databaseUrl, listen: "127.0.0.1:0", ...patience, ...options });
    onStarted(serve);
    await gateway.value("SELECT litmus_pgnats_reload_conf()");
    return serve;
  };

  it("waits for the call that is running, and takes no new one", async () => {
    const serve = await serving({ callTimeoutMs: 30_000, stopTimeoutMs: 30_000 });
    const asked = new Promise<() => void>((resolve) => {
      gateway.nats.subscribe("stop_slow", {
        callback: (_error, message) => resolve(() => void message.respond("done")),
      });
    });
    await gateway.nats.flush();
    const call = gateway.value("SELECT convert_from(nats_request_text('stop_slow', 'x', 40000), 'UTF8')");
    const answer = await asked;
    let isStopped = false;
    const stopped = serve.stop().then(() => {
      isStopped = true;
    });
    const watcher = await gateway.connect();
    await eventually("its address is gone", async () => {
      return (await watcher.query("SELECT FROM hawser_bridge_data.gateways")).rowCount === 0;
    });
    await expect(watcher.query("SELECT nats_flush()")).rejects.toMatchObject({ code: "08001" });
    expect([isStopped, serve.sessionCount]).toEqual([false, 1]);
    answer();
    expect(await call).toBe("done");
    await stopped;
    await expect(watcher.query("SELECT nats_flush()")).rejects.toMatchObject({
      code: "08001",
      hint: expect.stringContaining("hawser serve"),
    });
    await watcher.end();
  });

  it("tells idle sessions so that a call that begins before their connection ends goes to the next gateway", async () => {
    const between = await endless();
    const serve = await serving({ advertise: between.address }, ({ address }) =>
      between.leadTo(Number(address.split(":")[1])),
    );
    await gateway.value("SELECT nats_publish_text('stop.idle', 'x')");
    await using _next = await serving();
    await serve.stop();
    await gateway.value("SELECT nats_publish_text('stop.idle', 'x')");
    between.close();
  });

  it("waits no longer than its deadline; the call gets the error that its outcome is unknown", async () => {
    const serve = await serving({ stopTimeoutMs: 50 });
    const asked = new Promise<void>((resolve) => {
      gateway.nats.subscribe("stop_never", { callback: () => resolve() });
    });
    await gateway.nats.flush();
    const call = gateway.errorOf("SELECT nats_request_text('stop_never', 'x', 20000)");
    await asked;
    await serve.stop();
    expect(await call).toMatchObject({ code: "08006" });
  });

  it("may be asked for often, and leaves the next gateway to the sessions that are open", async () => {
    const serve = await serving();
    await gateway.value("SELECT nats_publish_text('stop.a', 'x')");
    await Promise.all([serve.stop(), serve.stop(), serve[Symbol.asyncDispose]()]);
    await serve.stop();
    await eventually("its session has ended", async () => {
      const { rowCount } = await gateway.client.query(
        "SELECT FROM pg_stat_activity WHERE application_name = 'hawser serve' AND datname = current_database()",
      );
      return rowCount === 0;
    });
    expect((await gateway.errorOf("SELECT nats_publish_text('stop.a', 'x')")).code).toBe("08001");
    await using _next = await serving();
    await gateway.value("SELECT nats_publish_text('stop.a', 'x')");
  });
});
