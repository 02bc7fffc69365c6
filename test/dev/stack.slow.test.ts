import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { type DevStack, type DevStackOptions, startDevStack } from "../../src/development/dev/index.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

async function start(options: DevStackOptions = {}): Promise<DevStack> {
  const stack = await startDevStack(options);
  onTestFinished(() => stack.stop());
  return stack;
}

/** The pid that Postgres wrote into its data directory. */
function postgresPid(stack: DevStack): number {
  return Number.parseInt(readFileSync(join(stack.directory!, "postgres/postmaster.pid"), "utf8"), 10);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("startDevStack", () => {
  it("starts a durable Postgres and a nats-server with JetStream, tells of both, and leaves nothing when stopped", async () => {
    const stack = await start();
    const [row] = await rowsOf(
      stack.databaseUrl,
      `SELECT current_setting('fsync') AS fsync, current_setting('max_connections') AS connections,
              current_setting('server_encoding') AS encoding, current_setting('TimeZone') AS zone,
              current_setting('listen_addresses') AS addresses`,
    );
    expect(row).toEqual({ fsync: "on", connections: "300", encoding: "UTF8", zone: "UTC", addresses: "127.0.0.1" });

    const connection = await connect({ servers: stack.natsUrl! });
    const manager = await jetstreamManager(connection);
    await manager.streams.add({ name: "S", subjects: ["s.>"] });
    expect((await manager.streams.info("S")).config.subjects).toEqual(["s.>"]);
    await connection.close();

    const origin = expect.any(String);
    expect(stack.servers).toEqual([
      { name: "Postgres", url: stack.databaseUrl, version: expect.stringMatching(/^\d+\.\d+$/), origin },
      { name: "nats-server", url: stack.natsUrl, version: expect.stringMatching(/^\d+\.\d+\.\d+/), origin },
    ]);

    const pid = postgresPid(stack);
    expect(isRunning(pid)).toBe(true);
    await stack.stop();
    await stack.closed;
    expect(isRunning(pid)).toBe(false);
    expect(existsSync(stack.directory!)).toBe(false);
    await stack.stop();
  });

  it("stops at once when asked to, also when a session is in the middle of a statement", async () => {
    const stack = await start({ nats: false });
    expect(stack.natsUrl).toBeNull();
    const sleeping = rowsOf(stack.databaseUrl, "SELECT pg_sleep(600)").catch((error: Error) => error);
    await eventually("the statement runs", async () => {
      const rows = await rowsOf(
        stack.databaseUrl,
        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'",
      );
      return rows.length === 1;
    });
    await stack.stop({ immediately: true });
    expect(await sleeping).toBeInstanceOf(Error);
    expect(existsSync(stack.directory!)).toBe(false);
  });

  it("says through `closed` that a server has ended by itself, with the end of its log", async () => {
    const stack = await start({ nats: false });
    process.kill(postgresPid(stack), "SIGTERM");
    await expect(stack.closed).rejects.toMatchObject({
      code: "dev_server_failed",
      message: expect.stringMatching(/^Postgres ended by itself[\s\S]*database system is shut down/),
    });
  });

  it("refuses settings that Postgres refuses, with its words, and leaves nothing behind", async () => {
    const messages: string[] = [];
    vi.stubEnv("TMPDIR", temporaryDirectory());
    const failing = startDevStack({ maxConnections: 0, onProgress: (message) => messages.push(message) });
    await expect(failing).rejects.toMatchObject({
      code: "dev_server_failed",
      message: expect.stringContaining("max_connections"),
    });
    expect(readdirSync(tmpdir())).toEqual([]);
  });
});

describe("a named directory", () => {
  it("is kept, with its data, for the next start, and belongs to one stack at a time", async () => {
    const directory = join(temporaryDirectory(), "data");
    const first = await start({ directory, nats: false });
    await onServer(first.databaseUrl, "CREATE TABLE kept (n integer)", "INSERT INTO kept VALUES (7)");
    await expect(startDevStack({ directory, nats: false })).rejects.toMatchObject({
      code: "dev_server_failed",
      message: expect.stringContaining(`used by the dev stack of process ${process.pid}`),
    });
    await first.stop();
    const second = await start({ directory, nats: false });
    expect(await rowsOf(second.databaseUrl, "SELECT n FROM kept")).toEqual([{ n: 7 }]);
  });
});

describe("leftovers", () => {
  it("of a dead owner are removed by the next start, those of a living one and foreign ones are not", async () => {
    vi.stubEnv("TMPDIR", temporaryDirectory());
    const make = (name: string, mark?: object) => {
      const path = join(tmpdir(), name);
      mkdirSync(path);
      if (mark !== undefined) writeFileSync(join(path, "hawser-dev.json"), JSON.stringify(mark));
      return path;
    };
    const running = await start({ nats: false });
    const own = JSON.parse(readFileSync(join(running.directory!, "hawser-dev.json"), "utf8")).owner;
    const dead = make("hawser-dev-dead", { owner: { ...own, startedAt: "1" } });
    const elsewhere = make("hawser-dev-container", { owner: { ...own, startedAt: "1", namespace: "pid:[1]" } });
    const fresh = make("hawser-dev-fresh");
    const stale = make("hawser-dev-stale");
    utimesSync(stale, new Date(0), new Date(0));
    const foreign = make("unrelated");

    await start({ nats: false });

    expect([dead, stale].filter((path) => existsSync(path))).toEqual([]);
    expect([running.directory!, elsewhere, fresh, foreign].filter((path) => !existsSync(path))).toEqual([]);
  });
});
