/**
 * Running and stopping: what may be called when, and what a start that failed leaves behind.
 */
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { Peer } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { failure } from "./support/errors.js";
import { type PeerWorld, peerWorld } from "./support/world.js";

const nothing = (): void => undefined;

async function registered(world: PeerWorld): Promise<{ topic: string; addr: string }[]> {
  return await world.query("SELECT topic, addr FROM hawser.topic_addr ORDER BY topic");
}

describe("run", () => {
  it("does nothing when the peer runs already, also called at once twice", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1", { nameWaitMs: 0 });
    const first: string[] = [];
    const second: string[] = [];
    const collect = (list: string[]) => (message: { payload: Uint8Array }) =>
      void list.push(Buffer.from(message.payload).toString());
    await Promise.all([a.run(collect(first)), a.run(collect(second))]);
    const address = a.boundListenAddress;
    await a.run(collect(second));
    expect(a.boundListenAddress).toBe(address);
    const b = await world.started("b-1");
    await b.sendTo("a", "x");
    expect({ first, second }).toEqual({ first: ["x"], second: [] });
    const [peers] = await world.query<{ count: number }>("SELECT count(*) FROM hawser.peers WHERE name = 'a-1'");
    expect(peers).toEqual({ count: 1 });
  });

  it("waits for a stop that is under way, and runs once, also called twice", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1", { nameWaitMs: 0 });
    await a.record();
    const stopping = a.stop();
    await Promise.all([a.record(), a.record(), stopping]);
    const b = await world.started("b-1");
    expect((await b.sendTo("a", "x")).outcome).toBe("delivered");
    expect(a.texts).toEqual(["x"]);
  });

  it("migrates an empty database, and registers the peer", async () => {
    await using world = await peerWorld({ migrated: false });
    const a = world.peer("a-1");
    expect([a.boundListenAddress, a.publishedAddress]).toEqual(["", ""]);
    await a.run(nothing);
    expect(a.boundListenAddress).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    expect(a.publishedAddress).toBe(a.boundListenAddress);
    expect(await registered(world)).toEqual([{ topic: "a", addr: a.boundListenAddress }]);
  });

  it("migrates once when many peers start at once on an empty database", async () => {
    await using world = await peerWorld({ migrated: false });
    const peers = Array.from({ length: 8 }, (_, n) => world.peer(`a-${n}`));
    await Promise.all(peers.map((peer) => peer.run(nothing)));
    expect(await registered(world)).toHaveLength(8);
    const migrations = await world.query<{ id: number }>("SELECT id FROM hawser.migrations");
    expect(new Set(migrations.map(({ id }) => id)).size).toBe(migrations.length);
  });
});

describe("stop", () => {
  it("may be called twice, at once and before run", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1");
    await a.stop();
    await a.run(nothing);
    await Promise.all([a.stop(), a.stop()]);
    await a.stop();
    expect(await registered(world)).toEqual([]);
  });

  it("ends a start that is under way", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1");
    const starting = failure("aborted", a.run(nothing));
    await a.stop();
    await starting;
    await failure("not_running", a.sendTo("b", "x"));
    expect(await registered(world)).toEqual([]);
  });

  it("keeps the bound address, clears the published one, and lets run follow", async () => {
    await using world = await peerWorld();
    const a = await world.started("a-1");
    const bound = a.boundListenAddress;
    await a.stop();
    expect([a.boundListenAddress, a.publishedAddress]).toEqual([bound, ""]);
    await a.run(nothing);
    expect(a.publishedAddress).toBe(a.boundListenAddress);
    expect(await registered(world)).toEqual([{ topic: "a", addr: a.boundListenAddress }]);
  });

  it("gives the name back in good order", async () => {
    await using world = await peerWorld();
    const a = await world.started("a-1");
    expect(await world.query("SELECT clean FROM hawser.peers")).toEqual([{ clean: false }]);
    await a.stop();
    expect(await world.query("SELECT clean FROM hawser.peers")).toEqual([{ clean: true }]);
    // At once, for another peer of the name.
    const twin = world.peer("a-1", { nameWaitMs: 0 });
    await twin.run(nothing);
    expect(twin.name).toBe("a-1");
  });

  it("leaves nothing behind that keeps sessions or ports", async () => {
    await using world = await peerWorld();
    const a = await world.started("a-1");
    const b = await world.started("b-1");
    await a.sendTo("b", "x");
    const address = b.boundListenAddress;
    await Promise.all([a.stop(), b.stop()]);
    const sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    await eventually("Postgres has no session of the peers", async () => (await world.query(sessions)).length === 0);
    await world.started("c-1", { listen: address });
  });

  it("is what `await using` does", async () => {
    await using world = await peerWorld();
    {
      await using peer = new Peer({ name: "a-1", topic: "a", listen: "127.0.0.1:0", databaseUrl: world.url });
      await peer.run(nothing);
      expect(await registered(world)).toHaveLength(1);
    }
    expect(await registered(world)).toEqual([]);
    expect(await world.query("SELECT clean FROM hawser.peers")).toEqual([{ clean: true }]);
  });
});

describe("the advertised address", () => {
  it("is published instead of the bound one; port 0 becomes the bound port", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1", { advertise: "localhost:0" });
    await a.run(nothing);
    const port = a.boundListenAddress.split(":").at(-1);
    expect(a.publishedAddress).toBe(`localhost:${port}`);
    const b = await world.started("b-1");
    expect(await b.listAddresses("a")).toEqual([{ address: `localhost:${port}`, name: "a-1" }]);
    expect((await b.sendTo("a", "x")).outcome).toBe("delivered");
  });

  it("with a port is published as it is", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1", { advertise: "peers.example:4100" });
    await a.run(nothing);
    expect(a.publishedAddress).toBe("peers.example:4100");
    expect(a.boundListenAddress).toMatch(/^127\.0\.0\.1:/);
  });

  it("can be set only while the peer is stopped, and is checked", async () => {
    await using world = await peerWorld();
    const a = world.peer("a-1");
    const error = await failure("invalid_argument", () => {
      a.advertise = "nowhere";
    });
    expect(error.message).toMatch(/advertise.*"nowhere".*host:port/);
    await a.run(nothing);
    await failure("already_running", () => {
      a.advertise = "localhost:1";
    });
    await a.stop();
    a.advertise = "localhost:4100";
    await a.run(nothing);
    expect([a.advertise, a.publishedAddress]).toEqual(["localhost:4100", "localhost:4100"]);
    await a.stop();
    a.advertise = undefined;
    await a.run(nothing);
    expect(a.publishedAddress).toBe(a.boundListenAddress);
  });
});

describe("a start that fails", () => {
  it("is bind_failed when the port is in use; run again works when it is free", async () => {
    await using world = await peerWorld();
    const other = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => other.once("listening", resolve));
    const { port } = other.address() as { port: number };
    const a = world.peer("a-1", { listen: `127.0.0.1:${port}` });
    const error = await failure("bind_failed", a.run(nothing));
    expect(error.message).toContain(`127.0.0.1:${port}`);
    expect((error.cause as NodeJS.ErrnoException).code).toBe("EADDRINUSE");
    // It has unregistered, and holds no name.
    expect(await registered(world)).toEqual([]);
    await failure("not_running", a.sendTo("b", "x"));
    const twin = world.peer("a-1", { nameWaitMs: 0 });
    await twin.run(nothing);
    await twin.stop();
    await new Promise((resolve) => other.close(resolve));
    await a.run(nothing);
    expect(a.boundListenAddress).toBe(`127.0.0.1:${port}`);
  });

  it("is bind_failed for a host that is not there", async () => {
    await using world = await peerWorld();
    await failure("bind_failed", world.peer("a-1", { listen: "no-such-host.invalid:0" }).run(nothing));
  });

  it("is plaintext_refused for an address beyond loopback unless the network is trusted", async () => {
    await using world = await peerWorld();
    const error = await failure("plaintext_refused", world.peer("a-1", { listen: "0.0.0.0:0" }).run(nothing));
    expect(error.message).toContain("allowPlaintext");
    await world.peer("a-1", { listen: "0.0.0.0:0", allowPlaintext: true }).run(nothing);
  });

  it("is startup_failed with the cause when the database is not there", async () => {
    await using world = await peerWorld();
    const elsewhere = new URL(world.url);
    elsewhere.pathname = "/hawser_no_such_database";
    const a = world.peer("a-1", { databaseUrl: elsewhere.href });
    const error = await failure("startup_failed", a.run(nothing));
    expect(error.message).toContain("hawser_no_such_database");
    expect(error.cause).toMatchObject({ code: "store_failed" });
    await failure("not_running", a.sendTo("b", "x"));
  });

  it("is startup_failed when no server answers, and run again works when one does", async () => {
    await using world = await peerWorld();
    const nobody = new URL(world.url);
    nobody.port = "1";
    const error = await failure("startup_failed", world.peer("a-1", { databaseUrl: nobody.href }).run(nothing));
    expect(error.message).toContain("ECONNREFUSED");
    await world.peer("a-1").run(nothing);
  });

  it("shows no password of the database's URL", async () => {
    await using world = await peerWorld();
    const url = new URL(world.url);
    url.pathname = "/hawser_no_such_database";
    url.password = "s3cret-word";
    const error = await failure("startup_failed", world.peer("a-1", { databaseUrl: url.href }).run(nothing));
    expect(JSON.stringify([error.message, String(error.cause)])).not.toContain("s3cret-word");
    const bad = await failure(
      "invalid_argument",
      world.peer("a-1", { databaseUrl: "mysql://u:s3cret-word@h/d" }).run(),
    );
    expect(bad.message).not.toContain("s3cret-word");
  });

  it("is name_in_use while another peer has the name, after nameWaitMs", async () => {
    await using world = await peerWorld();
    const a = await world.started("a-1");
    const twin = world.peer("a-1", { topic: "other", nameWaitMs: 300 });
    const begun = performance.now();
    const error = await failure("name_in_use", twin.run(nothing));
    expect(performance.now() - begun).toBeGreaterThanOrEqual(200);
    expect(error.message).toContain('"a-1"');
    expect(error.retryable).toBe(true);
    // The one that runs is not troubled.
    const b = await world.started("b-1");
    expect((await b.sendTo("a", "x")).outcome).toBe("delivered");
    await a.stop();
    await twin.run(nothing);
  });

  it("gets the name when its holder stops within nameWaitMs", async () => {
    await using world = await peerWorld();
    const a = await world.started("a-1");
    const twin = world.peer("a-1", { nameWaitMs: 30_000 });
    const waiting = twin.run(nothing);
    await eventually("the twin's start is under way", () => twin.publishedAddress === "");
    await a.stop();
    await waiting;
    expect(twin.publishedAddress).not.toBe("");
  });
});
