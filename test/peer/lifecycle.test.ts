/**
 * Running and stopping: what may be called when, and what a start that failed leaves behind.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { enqueueBatch, Peer } from "../../src/jobs-and-peers/peer/index.js";
import {
  type ConnectionFault,
  type CutStage,
  type Proxy as PostgresProxy,
  startProxy,
} from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { ownPort } from "../support/own-port.js";
import { slowIt } from "../support/slow-it.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import { peerWorld } from "./support/world.js";

const world = sharedPeerWorld();

const nothing = (): void => undefined;

async function registered(): Promise<{ topic: string; addr: string }[]> {
  return await world.query("SELECT topic, addr FROM hawser_peer_data.listeners ORDER BY topic");
}

describe("start", () => {
  it("does nothing when the peer runs already, also called at once twice", async () => {
    const a = world.peer("a-1", { nameWaitMs: 0 });
    await a.recordTopic("a");
    expect(await Promise.all([a.start(), a.start()])).toEqual([a, a]);
    const address = a.localAddress;
    await a.start();
    expect(a.localAddress).toBe(address);
    const b = await world.started("b-1");
    await b.send("a", "x");
    expect(a.texts).toEqual(["x"]);
    const [peers] = await world.query<{ count: number }>(
      "SELECT count(*) FROM hawser_peer_data.peers WHERE name = 'a-1'",
    );
    expect(peers).toEqual({ count: 1 });
  });

  it("waits for a stop that is under way, and runs once, also called twice", async () => {
    const a = world.peer("a-1", { nameWaitMs: 0 });
    await a.record();
    const stopping = a.stop();
    await Promise.all([a.record(), a.record(), stopping]);
    const b = await world.started("b-1");
    expect((await b.send("a", "x")).outcome).toBe("delivered");
    expect(a.texts).toEqual(["x"]);
  });
});

describe("stop", () => {
  it("may be called twice, at once and before start", async () => {
    const a = world.peer("a-1");
    await a.stop();
    await a.startWith(nothing);
    await Promise.all([a.stop(), a.stop()]);
    await a.stop();
    expect(await registered()).toEqual([]);
  });

  it("ends a start that is under way", async () => {
    const a = world.peer("a-1");
    await a.recordTopic("a");
    const never = 'the peer "a-1" was never started; call start() first';
    expect((await failure("not_running", a.send("b", "x"))).message).toBe(never);
    expect((await failure("not_running", a.request("b", "x"))).message).toBe(never);
    const starting = failure("aborted", a.start());
    expect((await failure("not_running", a.send("b", "x"))).message).toBe(
      'the peer "a-1" is starting; await start() first',
    );
    await a.stop();
    await starting;
    expect((await failure("not_running", a.send("b", "x"))).message).toBe(never);
    expect(await registered()).toEqual([]);
  });

  it("lets start follow, at a new address", async () => {
    const a = await world.started("a-1");
    await a.stop();
    await a.startWith(nothing);
    expect(a.address).toBe(a.localAddress);
    expect(await registered()).toEqual([{ topic: "a", addr: a.localAddress }]);
  });

  it("gives the name back in good order", async () => {
    const a = await world.started("a-1");
    expect(await world.query("SELECT clean FROM hawser_peer_data.peers")).toEqual([{ clean: false }]);
    await a.stop();
    expect(await world.query("SELECT clean FROM hawser_peer_data.peers")).toEqual([{ clean: true }]);
    // At once, for another peer of the name.
    const twin = world.peer("a-1", { nameWaitMs: 0 });
    await twin.startWith(nothing);
    expect(twin.name).toBe("a-1");
  });

  it("leaves nothing behind that keeps sessions or ports", async () => {
    await using world = await peerWorld({ nats: false });
    const sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    const listen = `127.0.0.1:${await ownPort()}`;
    const [a, b] = [await world.started("a-1"), await world.started("b-1", { listen })];
    await a.send("b", "x");
    await Promise.all([a.stop(), b.stop()]);
    await eventually("Postgres has no session of the peers", async () => (await world.query(sessions)).length === 0);
    const c = await world.started("c-1", { listen });
    await c.stop();
  });

  it("is what `await using` does", async () => {
    {
      await using peer = new Peer({ name: "a-1", topic: "a", listen: "127.0.0.1:0", databaseUrl: world.url });
      await peer.handle(peer.topic, nothing);
      await peer.start();
      expect(await registered()).toHaveLength(1);
    }
    expect(await registered()).toEqual([]);
    expect(await world.query("SELECT clean FROM hawser_peer_data.peers")).toEqual([{ clean: true }]);
  });
});

describe("the advertised address", () => {
  it("is published instead of the bound one while the peer runs; port 0 becomes the bound port", async () => {
    const a = world.peer("a-1", { advertise: "localhost:0" });
    const said = () => [a.name, a.localAddress, a.address];
    expect(said()).toEqual(["a-1", "", ""]);
    await a.startWith(nothing);
    const [, bound = "", published] = said();
    expect(bound).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    expect(published).toBe(bound.replace("127.0.0.1", "localhost"));
    const b = await world.started("b-1");
    expect(await b.listenersOf("a")).toEqual([{ address: published, name: "a-1" }]);
    expect((await b.send("a", "x")).outcome).toBe("delivered");
    await a.stop();
    expect(said()).toEqual(["a-1", bound, ""]);
  });

  it("with a port is published as it is", async () => {
    const a = world.peer("a-1", { advertise: "peers.example:4100" });
    await a.startWith(nothing);
    expect(a.address).toBe("peers.example:4100");
    expect(a.localAddress).toMatch(/^127\.0\.0\.1:/);
  });
});

describe("a start that fails", () => {
  it("is bind_failed when the port is in use; start again works when it is free", async () => {
    const port = await ownPort();
    const other = createServer().listen(port, "127.0.0.1");
    await new Promise((resolve) => other.once("listening", resolve));
    const a = world.peer("a-1", { listen: `127.0.0.1:${port}` });
    const error = await failure("bind_failed", a.startWith(nothing));
    expect(error.message).toContain(`127.0.0.1:${port}`);
    expect((error.cause as NodeJS.ErrnoException).code).toBe("EADDRINUSE");
    // It has unregistered, and holds no name.
    expect(await registered()).toEqual([]);
    await failure("not_running", a.send("b", "x"));
    const twin = world.peer("a-1", { nameWaitMs: 0 });
    await twin.startWith(nothing);
    await twin.stop();
    await new Promise((resolve) => other.close(resolve));
    await a.startWith(nothing);
    expect(a.localAddress).toBe(`127.0.0.1:${port}`);
  });

  const malformed = ["nonsense", "localhost", "127.0.0.1", "127.0.0.1:", ":4100", "127.0.0.1:65536", "::1:4100"];
  it("is bind_failed for what is no address, and leaves nothing behind", async () => {
    for (const listen of [...malformed, "http://127.0.0.1:1", " ", "no-such-host.invalid:0"]) {
      const a = world.peer("a-1", { listen });
      const { message } = await failure("bind_failed", a.startWith(nothing));
      expect(message).toContain(listen);
      if (!listen.includes("invalid")) expect(message).toContain("write host:port");
      expect(await registered()).toEqual([]);
      if (listen !== malformed[0]) continue;
      // It may be tried again, and fails again.
      await failure("bind_failed", a.startWith(nothing));
    }
    // The name is free for one who knows better.
    await world.peer("a-1", { nameWaitMs: 0 }).startWith(nothing);
  });

  it("is none for a host name, which is an address to listen on", async () => {
    const b = await world.started("b-1", { listen: "localhost:0", advertise: "localhost:0" });
    expect(b.localAddress).toMatch(/^(127\.0\.0\.1|\[::1\]):\d+$/);
    expect(b.address).toMatch(/^localhost:\d+$/);
    const a = await world.started("a-1");
    expect((await a.send("b", "x")).outcome).toBe("delivered");
  });

  it("is plaintext_refused for an address beyond loopback unless the network is trusted", async () => {
    const error = await failure("plaintext_refused", world.peer("a-1", { listen: "0.0.0.0:0" }).startWith(nothing));
    expect(error.message).toContain("allowPlaintext");
    await world.peer("a-1", { listen: "0.0.0.0:0", allowPlaintext: true }).startWith(nothing);
  });

  it("is startup_failed with the cause when the database is not there, and shows no password", async () => {
    const url = new URL(world.url);
    url.pathname = "/hawser_no_such_database";
    // A server of the user's own may ask for none.
    url.password ||= "s3cret-word";
    const a = world.peer("a-1", { databaseUrl: url.href });
    const error = await failure("startup_failed", a.startWith(nothing));
    expect(error.message).toContain("hawser_no_such_database");
    expect(error.cause).toMatchObject({ code: "store_failed" });
    expect(error).toMatchObject({ retryable: false, remedy: expect.stringContaining("Create the database") });
    expect(JSON.stringify([error.message, String(error.cause)])).not.toContain(url.password);
    await failure("not_running", a.send("b", "x"));
    const bad = await failure("invalid_argument", () =>
      world.peer("a-1", { databaseUrl: "mysql://u:s3cret-word@h/d" }),
    );
    expect(bad.message).not.toContain("s3cret-word");
  });

  it("is startup_failed when no server answers, and start again works when one does", async () => {
    const nobody = new URL(world.url);
    nobody.port = "1";
    const error = await failure("startup_failed", world.peer("a-1", { databaseUrl: nobody.href }).startWith(nothing));
    expect(error.message).toContain("ECONNREFUSED");
    expect(error.retryable).toBe(true);
    await world.peer("a-1").startWith(nothing);
  });

  /** As a start that fails: by something that passes, after which the same peer starts. */
  async function startsAfter(fault: (proxy: PostgresProxy, nth: number) => Promise<void>): Promise<number> {
    let times = 0;
    // A question that gets no answer, such as the last one of a connection, is not cut at its answer.
    for (let nth = 1; nth <= times + 3; nth += 1) {
      await using proxy = await startProxy(world.url);
      let hasCome = false;
      void fault(proxy, nth).then(() => {
        hasCome = true;
      });
      const a = world.peer("a-1", { databaseUrl: proxy.url });
      await a.startWith(nothing).catch(async (error: unknown) => {
        expect(error).toMatchObject({ code: "startup_failed", retryable: true });
        await a.start();
      });
      expect(await registered()).toEqual([{ topic: "a", addr: a.localAddress }]);
      await enqueueBatch(world, "a", ["job"]);
      await eventually("it handles jobs", async () => (await world.storedMessages()) === 0);
      await a.stop();
      if (hasCome) times = nth;
    }
    return times;
  }

  async function startsAfterAny(fault: ConnectionFault): Promise<void> {
    const connections = await startsAfter((proxy, nth) => proxy.failConnection(nth, fault));
    // Those of the session and of the pool.
    expect(connections).toBeGreaterThanOrEqual(2);
  }

  const failed = "is startup_failed at most when any one of its connections is";
  it(`${failed} reset, and start again works`, () => startsAfterAny("reset"));
  slowIt(`${failed} refused, and start again works`, () => startsAfterAny("refused"));

  slowIt.each<CutStage>(["before", "sent", "answered"])(
    "is startup_failed at most when its connection ends at any one of its questions to Postgres: %s",
    async (stage) => {
      expect(await startsAfter((proxy, nth) => proxy.cutAt("", stage, nth))).toBeGreaterThan(10);
    },
  );

  it("is name_in_use while another peer has the name, after nameWaitMs", async () => {
    const a = await world.started("a-1");
    const twin = world.peer("a-1", { topic: "other", nameWaitMs: 300 });
    const error = await failure("name_in_use", twin.startWith(nothing));
    expect(error.message).toContain('"a-1"');
    expect(error.retryable).toBe(true);
    // The one that runs is not troubled.
    const b = await world.started("b-1");
    expect((await b.send("a", "x")).outcome).toBe("delivered");
    await a.stop();
    await twin.startWith(nothing);
  });

  it("gets the name when its holder stops within nameWaitMs", async () => {
    const a = await world.started("a-1");
    const twin = world.peer("a-1", { nameWaitMs: 30_000 });
    const waiting = twin.startWith(nothing);
    await eventually("the twin's start is under way", () => twin.address === "");
    await a.stop();
    await waiting;
    expect(twin.address).not.toBe("");
  });
});

it("the exported version is that of package.json", () => {
  const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  expect(version).toBe(manifest.version);
});
