import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DatabaseAddress } from "../../src/foundation/postgres/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { tlsFront } from "../support/tls-front.js";
import { type World, world } from "./support/world.js";

const settingsOf = (...from: Parameters<typeof DatabaseAddress.of>) => DatabaseAddress.of(...from).hosts[0]!;

describe("TLS to Postgres", () => {
  let w: World;
  let directory: string;
  let root: string;
  const authority = new CertificateAuthority();
  const certificate = authority.issue(["localhost"]);

  beforeAll(async () => {
    w = await world();
    directory = await mkdtemp(join(tmpdir(), "hawser-tls-"));
    root = join(directory, "root.pem");
    await writeFile(root, authority.certificate);
  });
  afterAll(async () => {
    await rm(directory, { recursive: true });
    await w[Symbol.asyncDispose]();
  });

  async function canOpen(url: string): Promise<true | string> {
    try {
      const store = await openStore({ databaseUrl: url });
      await store.pending({ name: "sender", sourceTopic: "source" });
      await store.close();
      return true;
    } catch (error) {
      expect(error).toMatchObject({ code: "store_failed" });
      return (error as Error).message;
    }
  }

  it("trusts no certificate that it cannot verify, in any mode but no-verify", async () => {
    await using front = await tlsFront(w.url, certificate);
    for (const mode of ["allow", "prefer", "require", "verify-ca", "verify-full"]) {
      expect(await canOpen(front.url("localhost", `sslmode=${mode}`)), mode).toContain("unable to verify");
    }
    expect(front.seen).toEqual({ bytesBehindTls: 0, plainBytes: 0 });
    expect(await canOpen(front.url("localhost", "sslmode=no-verify"))).toBe(true);
  });

  it("verifies the host name too, except with verify-ca", async () => {
    await using front = await tlsFront(w.url, certificate);
    for (const mode of ["require", "verify-full"]) {
      const query = `sslmode=${mode}&sslrootcert=${root}`;
      expect(await canOpen(front.url("localhost", query)), mode).toBe(true);
      const before = front.seen.bytesBehindTls;
      expect(await canOpen(front.url("127.0.0.1", query)), mode).toContain("does not match certificate");
      expect(front.seen.bytesBehindTls).toBe(before);
    }
    expect(await canOpen(front.url("127.0.0.1", `sslmode=verify-ca&sslrootcert=${root}`))).toBe(true);
    const other = join(directory, "other.pem");
    await writeFile(other, new CertificateAuthority().certificate);
    expect(await canOpen(front.url("localhost", `sslmode=verify-ca&sslrootcert=${other}`))).not.toBe(true);
  });

  it("sends nothing in the clear to a server without TLS", async () => {
    await using front = await tlsFront(w.url, undefined);
    for (const mode of ["prefer", "require", "verify-full"]) {
      expect(await canOpen(front.url("localhost", `sslmode=${mode}`)), mode).toContain("does not support SSL");
    }
    expect(front.seen.plainBytes).toBe(0);
  });

  it("reads libpq's variables where the URL says nothing, and the URL first", () => {
    const env = { PGSSLMODE: "verify-full", PGSSLROOTCERT: root };
    expect(settingsOf("postgres://h/d", env).ssl).toEqual({ ca: authority.certificate });
    expect(settingsOf(undefined, env).ssl).toEqual({ ca: authority.certificate });
    expect(settingsOf("postgres://h/d?sslmode=disable", env).ssl).toBe(false);
    expect(settingsOf("postgres://h/d", {}).ssl).toBeUndefined();
    // Without a mode, a root certificate in the environment asks for nothing.
    expect(settingsOf("postgres://h/d", { PGSSLROOTCERT: root }).ssl).toBeUndefined();
    expect(settingsOf(`postgres://h/d?sslrootcert=${root}`, {}).ssl).toEqual({ ca: authority.certificate });
    expect(settingsOf("postgres://h/d?sslrootcert=system&sslmode=require", {}).ssl).toEqual({});
    expect(settingsOf("postgres://h/d?sslmode=require&sslnegotiation=direct", {}).sslnegotiation).toBe("direct");
  });

  it("says which parameter is wrong", () => {
    const wrong = [
      ["sslmode=verify", /sslmode "verify" is unknown; use one of disable, no-verify/],
      ["sslmode=require&sslrootcert=/nowhere/root.pem", /sslrootcert \/nowhere\/root.pem cannot be read: ENOENT/],
      ["sslmode=require&sslkey=/nowhere/key.pem", /sslkey \/nowhere\/key.pem cannot be read/],
      ["sslmode=require&sslcert=/dev/zero", /sslcert \/dev\/zero cannot be read: it is not a regular file/],
      [`sslmode=require&sslkey=${directory}`, /sslkey .* cannot be read: it is not a regular file/],
    ] as const;
    for (const [query, message] of wrong) {
      expect(() => settingsOf(`postgres://u:p@h/d?${query}`, {})).toThrow(message);
    }
  });

  it("leaves everything else of the URL to the driver", () => {
    const { connectionString } = settingsOf("postgres://u:p@h/d?sslmode=require&options=-c%20a%3Db+c", {});
    expect(new URL(connectionString!).searchParams.get("options")).toBe("-c a=b c");
    expect(settingsOf("postgres://u:p@h/d", {}).connectionString).toBe("postgres://u:p@h/d");
    expect(settingsOf("socket:/var/run/postgresql?db=d", {}).connectionString).toContain("socket:/var/run");
  });
});
