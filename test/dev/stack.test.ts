/**
 * Functions of a dev stack that start no server. `stack.slow.test.ts` starts servers.
 */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { libpqVariables, startDevStack } from "../../src/development/dev/index.js";
import { testNatsUrl, testServerUrl } from "../support/database.js";
import { rowsOf } from "../support/on-server.js";
import { temporaryDirectory } from "../support/temporary.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("startDevStack", () => {
  it("ends its start when the signal says so, and leaves nothing behind", async () => {
    vi.stubEnv("TMPDIR", temporaryDirectory());
    const reason = new Error("changed my mind");
    const controller = new AbortController();
    const starting = startDevStack({ signal: controller.signal, onProgress: () => controller.abort(reason) });
    await expect(starting).rejects.toBe(reason);
    expect(readdirSync(tmpdir())).toEqual([]);
  });

  it("takes no directory that holds what no dev stack has left there", async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, "thesis.txt"), "");
    await expect(startDevStack({ directory })).rejects.toMatchObject({
      code: "dev_server_failed",
      message: expect.stringContaining("is not empty"),
    });
    expect(existsSync(join(directory, "thesis.txt"))).toBe(true);
  });
});

describe("servers of somebody else", () => {
  it("are used and not stopped when HAWSER_DATABASE_URL and HAWSER_NATS_URL name them", async () => {
    const databaseUrl = testServerUrl();
    const natsUrl = testNatsUrl();
    vi.stubEnv("HAWSER_DATABASE_URL", databaseUrl);
    vi.stubEnv("HAWSER_NATS_URL", natsUrl);
    const stack = await startDevStack();
    expect(stack).toMatchObject({ databaseUrl, natsUrl, directory: undefined });
    expect(stack.servers.map(({ origin }) => origin)).toEqual(["HAWSER_DATABASE_URL", "HAWSER_NATS_URL"]);
    await stack.stop();
    expect(await rowsOf(databaseUrl, "SELECT 1 AS alive")).toEqual([{ alive: 1 }]);
  });

  it("are refused, naming the variable but not the password, when they do not answer", async () => {
    for (const [url, shown] of [
      ["postgresql://me:s3cret@127.0.0.1:1/db", "postgresql://***@127.0.0.1:1/db"],
      ["postgresql://me@127.0.0.1:1/db?password=s3cret", "postgresql://me@127.0.0.1:1/db?password=***"],
    ] as const) {
      vi.stubEnv("HAWSER_DATABASE_URL", url);
      await expect(startDevStack()).rejects.toMatchObject({
        code: "dev_server_failed",
        message: expect.stringContaining(`${shown}, the value of HAWSER_DATABASE_URL`),
      });
    }
    vi.stubEnv("HAWSER_DATABASE_URL", undefined);
    vi.stubEnv("HAWSER_NATS_URL", "nats://127.0.0.1:1");
    await expect(startDevStack()).rejects.toThrow("HAWSER_NATS_URL");
  });
});

describe("libpqVariables", () => {
  it.each([
    [
      "postgres://a%40b:p%2Fw@h:5433/my%20db",
      { PGHOST: "h", PGPORT: "5433", PGUSER: "a@b", PGPASSWORD: "p/w", PGDATABASE: "my db" },
    ],
    ["postgres://[::1]:5433/d", { PGHOST: "::1", PGPORT: "5433", PGDATABASE: "d" }],
    ["postgres://%2Fvar%2Frun/d", { PGHOST: "/var/run", PGDATABASE: "d" }],
    ["postgres:///d?host=/var/run&port=5433", { PGHOST: "/var/run", PGPORT: "5433", PGDATABASE: "d" }],
    ["postgres://a:100%@h/d?sslmode=verify-full", { PGHOST: "h", PGUSER: "a", PGPASSWORD: "100%", PGDATABASE: "d" }],
  ])("of %s", (url, variables) => {
    expect(libpqVariables(url)).toStrictEqual({ PGSERVICE: undefined, PGHOSTADDR: undefined, ...variables });
  });

  it.each(["postgres://a,b/d", "postgres://a:1,b:2/d", "postgres:///d?host=a,b"])("are none of %s", (url) => {
    expect(libpqVariables(url)).toEqual({});
  });
});
