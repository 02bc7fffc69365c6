import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { hawser, jsonLines } from "./support/hawser.js";

describe("the commands that look at the mesh", () => {
  let world: PeerWorld;
  const json = async (...args: string[]) => {
    const { status, stdout, stderr } = await hawser([...args, "--json"], { databaseUrl: world.url });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return jsonLines(stdout);
  };
  const text = async (...args: string[]) => {
    const { status, stdout, stderr } = await hawser(args, { databaseUrl: world.url });
    expect(status).toBe(0);
    return { stdout, stderr };
  };

  const peers: TestPeer[] = [];
  const started: PeerWorld["started"] = async (...args) => {
    const peer = await world.started(...args);
    peers.push(peer);
    return peer;
  };

  beforeAll(async () => {
    world = await peerWorld({ keepsConnections: true });
  });
  afterAll(() => world[Symbol.asyncDispose]());
  afterEach(async () => {
    for (const peer of peers.splice(0)) await peer.stop();
    await world.query(
      "TRUNCATE hawser_peer_data.peers, hawser_peer_data.listeners, hawser_peer_data.stored_messages, hawser_peer_data.channels, hawser_data.queue CASCADE",
    );
  });

  it("have nothing to show of an empty one", async () => {
    for (const command of ["topics", "peers", "pending"]) {
      expect(await json(command)).toEqual([]);
      const { stdout, stderr } = await text(command);
      expect({ stdout, isSaid: stderr.length > 10 }).toEqual({ stdout: "", isSaid: true });
    }
  });

  it("topics lists listeners with address, and whether they run", async () => {
    const orders = await started("orders-1");
    await orders.recordTopic("news");
    const audit = await started("audit-1", { defaults: { durable: true } });
    await audit.stop();
    await world.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('orders', '10.0.0.1:1', 'by-hand')",
    );
    const address = orders.localAddress;
    const orders1 = { name: "orders-1", address, durable: false, running: true };
    expect(await json("topics")).toMatchObject([
      {
        ...{ topic: "audit", state: "stopped", waiting: 0, listenerCount: 1 },
        listeners: [{ name: "audit-1", address: audit.localAddress, durable: true, subscribed: false, running: false }],
      },
      { topic: "news", state: "running", listeners: [{ ...orders1, subscribed: true }] },
      {
        ...{ topic: "orders", state: "running", listenerCount: 2 },
        listeners: [
          { ...orders1, subscribed: false },
          { name: "by-hand", address: "10.0.0.1:1", running: false },
        ],
      },
    ]);
    const { stdout } = await text("topics");
    expect(stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
      ["TOPIC", "STATE", "WAITING", "OLDEST", "LISTENERS", "PAUSED SINCE", "BY", "LIMITS", "RESULTS KEPT"],
      ["audit", "stopped", "0", `audit-1 (${audit.localAddress}, away, durable)`],
      ["news", "running", "0", `orders-1 (${address}, running, subscribed)`],
      ["orders", "running", "0", `orders-1 (${address}, running), by-hand (10.0.0.1:1, away)`],
      [""],
    ]);
  });

  it("peers lists names with their state, and what waits for them", async () => {
    const orders = await started("orders-1");
    const shop = await started("shop-1");
    await shop.send("orders", "met");
    await orders.stop();
    await shop.send("orders", "1");
    await shop.send("orders", "2");
    await world.query(
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('far', '10.0.0.1:1', 'by-hand')",
    );
    const [listener, byHand, sender] = await json("peers");
    expect(byHand).toEqual({
      name: "by-hand",
      running: false,
      epoch: null,
      startedAt: null,
      clean: null,
      version: null,
      certificateEndsAt: null,
      topics: ["far"],
      waiting: 0,
      oldestWaitingAt: null,
      sendsOn: 0,
      listensOn: 0,
      isComplete: true,
    });
    expect(listener).toMatchObject({
      name: "orders-1",
      running: false,
      clean: true,
      topics: [],
      waiting: 2,
      listensOn: 1,
    });
    expect(sender).toMatchObject({
      name: "shop-1",
      running: true,
      clean: false,
      version,
      certificateEndsAt: null,
      topics: ["shop"],
      waiting: 0,
      sendsOn: 1,
    });
    const [row] = await world.query<{ epoch: number; started_at: Date }>(
      "SELECT epoch, started_at FROM hawser_peer_data.peers WHERE name = 'shop-1'",
    );
    expect(sender).toMatchObject({ epoch: row!.epoch, startedAt: row!.started_at.toISOString() });
    const { stdout } = await text("peers");
    expect(stdout).toMatch(/^by-hand +never ran +never /m);
    expect(stdout).toMatch(/^orders-1 +stopped /m);
    expect(stdout).toMatch(/^shop-1 +running /m);

    await world.query(
      "UPDATE hawser_peer_data.peers SET certificate_ends_at = '2030-01-31T12:00:00Z' WHERE name = 'shop-1'",
    );
    expect((await json("peers"))[2]).toMatchObject({ certificateEndsAt: "2030-01-31T12:00:00.000Z" });
    const { stdout: withEnd } = await text("peers");
    expect(withEnd).toMatch(/^PEER +STATE +STARTED +EPOCH +VERSION +CERTIFICATE ENDS +WAITING /);
    const cells = withEnd.split("\n").map((line) => line.split(/ {2,}/));
    expect(cells[3]!.slice(4, 6)).toEqual([version, "2030-01-31T12:00:00.000Z"]);
  });

  it("peers tells a crash from an end in good order, and a holder from one in another database", async () => {
    await world.query(
      "INSERT INTO hawser_peer_data.peers (name, epoch, clean) VALUES ('crashed', 1, false), ('elsewhere', 1, false)",
    );
    await using other = await peerWorld({ keepsConnections: true });
    await other.started("elsewhere");
    expect((await json("peers")).map(({ name, running }) => [name, running])).toEqual([
      ["crashed", false],
      ["elsewhere", false],
    ]);
    expect((await text("peers")).stdout).toMatch(/^crashed +ended uncleanly /m);
  });

  it("pending lists what waits by listener, topic and sender, and can look at some of it", async () => {
    const orders = await started("orders-1");
    await orders.recordTopic("news");
    const shop = await started("shop-1");
    const till = await started("till-1");
    for (const peer of [shop, till]) await peer.send("orders", "met");
    await shop.send("news", "met");
    await orders.stop();
    // Stored together, in one row.
    await Promise.all([shop.send("orders", "12345"), shop.send("orders", "67")]);
    expect(await world.query("SELECT messages FROM hawser_peer_data.stored_messages")).toEqual([{ messages: 2 }]);
    await shop.send("news", "news");
    await till.send("orders", "x");
    const rows = await json("pending");
    const known = {
      listener: "orders-1",
      group: null,
      state: "stopped",
      hasMore: false,
      servedBy: null,
      servedUntil: null,
    };
    expect(rows.map(({ oldest: _, ...row }) => row)).toEqual([
      { ...known, topic: "orders", sender: "shop-1", from: "shop", count: 2, bytes: 7 },
      { ...known, topic: "news", sender: "shop-1", from: "shop", count: 1, bytes: 4 },
      { ...known, topic: "orders", sender: "till-1", from: "till", count: 1, bytes: 1 },
    ]);
    const [oldest] = await world.query<{ at: Date }>(
      "SELECT min(stored_at) AS at FROM hawser_peer_data.stored_messages",
    );
    expect(rows[0]!["oldest"]).toBe(oldest!.at.toISOString());
    expect(await json("pending", "--topic", "news")).toHaveLength(1);
    expect(await json("pending", "--name", "orders-1")).toHaveLength(3);
    expect(await json("pending", "--name", "shop-1")).toEqual([]);
    expect((await text("pending")).stdout).toMatch(/^orders +stopped +2 +\d{4}-\S+ +7 +orders-1 +shop-1 +shop$/m);
    await orders.record();
    await eventually("nothing waits", async () => (await json("pending")).length === 0);
  });

  it("peers forgets one that does not come back", async () => {
    const orders = await started("orders-1");
    const pod = await started("pod-7f9c");
    await pod.send("orders", "met");
    const wrong = await hawser(["peers", "forget", "pod:7f9c"], { databaseUrl: world.url });
    expect(wrong).toMatchObject({ status: 64, stdout: "" });
    expect(wrong.stderr).toContain(`must not contain ':'`);
    const refused = await hawser(["peers", "forget", "pod-7f9c"], { databaseUrl: world.url });
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toContain('"pod-7f9c" is running; stop it first');
    await pod.stop();
    expect((await text("peers", "forget", "pod-7f9c")).stdout).toBe('Forgot "pod-7f9c", with 1 channel.\n');
    expect((await json("peers")).map(({ name }) => name)).toEqual(["orders-1"]);
    // The name begins anew, with a listener that knew it before.
    const again = await started("pod-7f9c");
    await again.send("orders", "new");
    await again.stop();
    await orders.stop();
    expect(await json("peers", "forget", "orders-1")).toEqual([{ name: "orders-1", channels: 1, kept: [] }]);
  });

  it("pending and peers show no names of Hawser's own", async () => {
    await started("shop-1");
    await world.query("SELECT hawser.enqueue('nobody-yet', 'x')");
    expect(await json("pending")).toMatchObject([{ listener: null, topic: "nobody-yet", count: 1 }]);
    expect((await text("pending")).stdout).toMatch(/^nobody-yet +unserved +1 +\d{4}-\S+ +none is known +enqueued$/m);
    expect((await json("peers")).map(({ name }) => name)).toEqual(["shop-1"]);
  });

  it("topics and pending show groups by their names", async () => {
    const member = world.peer("billing-1", { defaults: { group: "red", durable: true } });
    await member.record();
    await member.stop();
    await world.query("SELECT hawser.enqueue('billing', 'x'::text, to_all => true)");
    await started("shop-1");
    expect(await json("pending")).toMatchObject([{ listener: null, group: "red", topic: "billing", count: 1 }]);
    expect((await text("pending")).stdout).toMatch(/^billing +stopped +1 +\d{4}-\S+ +a member of red +enqueued/m);
    expect(await json("topics")).toMatchObject([
      { topic: "billing", state: "stopped", waiting: 1, listeners: [{ name: "billing-1", group: "red" }] },
      { topic: "shop", listeners: [{ name: "shop-1", group: null }] },
    ]);
    expect((await text("topics")).stdout).toMatch(
      /^billing +stopped +1 +\S+ +billing-1 \(\S+, away, durable, in the group red\), last served by billing-1 until \S+$/m,
    );
    // Who serves the topic as a member has them.
    const { stdout } = await text("listen", "billing", "--group", "red", "--count", "1", "--quiet");
    expect(stdout).toContain("x");
  });

  it("secret rotates without ever showing a secret", async () => {
    const secretsShown = async (output: string): Promise<boolean> => {
      const rows = await world.query<{ secret: Buffer }>("SELECT secret FROM hawser_peer_data.mesh_secret");
      return rows.some(
        ({ secret }) => output.includes(secret.toString("hex")) || output.includes(secret.toString("base64")),
      );
    };
    expect(await json("secret", "list")).toEqual([
      { id: 1, createdAt: expect.any(String), ageSeconds: expect.any(Number) },
    ]);
    const early = await hawser(["secret", "retire"], { databaseUrl: world.url });
    expect(early).toMatchObject({ status: 73, stdout: "" });
    expect(await json("secret", "rotate")).toMatchObject([{ action: "added", id: 2 }]);
    const again = await hawser(["secret", "rotate"], { databaseUrl: world.url });
    expect(again).toMatchObject({ status: 73, stdout: "" });
    const { stdout } = await text("secret", "list");
    expect(stdout).toMatch(/^SECRET +MADE +AGE\n +2 .*\n +1 .*\n$/);
    expect(await secretsShown(stdout)).toBe(false);
    expect(await json("secret", "retire")).toMatchObject([{ action: "retired", id: 1 }]);
    const unknown = await hawser(["secret", "show"], { databaseUrl: world.url });
    expect(unknown.status).toBe(64);
    expect(unknown.stderr).toContain('`hawser secret` cannot "show". It can list, rotate, retire.');
  });

  it("print nothing that a terminal obeys, whatever names others have chosen", async () => {
    const name = "a\u202eb\u200ec\u2028d";
    await world.query("INSERT INTO hawser_peer_data.peers (name, epoch, version) VALUES ($1, 1, $2)", [
      name,
      "\u001b[2J\u009b31m",
    ]);
    const lines = await text("peers", "--json");
    expect(lines.stdout).toContain('"a\\u202eb\\u200ec\\u2028d"');
    expect(jsonLines(lines.stdout)).toMatchObject([{ name }]);
    expect((await text("peers")).stdout).toMatch(/^a\\u202eb\\u200ec\\u2028d .* \\u001b\[2J\\u009b31m /m);
    const unknown = await hawser(["peers", "reassign", `${name}!`, "heir-1"], { databaseUrl: world.url });
    expect(unknown.stderr).toContain('there is no record of a peer "a\\u202eb\\u200ec\\u2028d!"');
  });
});
