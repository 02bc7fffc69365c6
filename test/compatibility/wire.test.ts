/**
 * Peers of different program versions on one wire, as docs/compatibility.md says.
 */
import { describe, expect, it } from "vitest";
import { Capability, type FrameKind, ownCapabilities } from "../../src/jobs-and-peers/wire/index.js";
import { ForeignPeer } from "../conformance/peer/foreign-peer.js";
import { type FrameStream, NodeWire, type NodeWireOptions } from "../conformance/peer/node-wire.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { laterBody, laterWire } from "./later-wire.js";

const world = sharedPeerWorld();

/** A payload that is worth compressing. */
const long = "20 m of rope, ".repeat(1_000);

async function foreign(wire: NodeWire): Promise<ForeignPeer> {
  return await ForeignPeer.start({ name: "guest-1", topic: "guest", databaseUrl: world.url, wire });
}

/** Sends until one is delivered over the connection. */
async function sendLive(send: () => Promise<{ outcome: string }>): Promise<void> {
  await eventually("a message is delivered", async () => (await send()).outcome === "delivered");
}

describe("a peer of a later minor version", () => {
  it("sends frames with fields that are not known here, and they are taken for what is known", async () => {
    expect(Buffer.from(laterBody({ ping: { token: "1" } })).includes("later")).toBe(true);
    await using wire = laterWire();
    const orders = await world.started("orders-1");
    await using guest = await foreign(wire);
    const { sender, topicId, refused } = await guest.channelTo("orders");
    expect(refused).toBeUndefined();
    await sender.isLive();
    expect(await sender.send(topicId, "one", [["trace", "1"]])).toBe("delivered");
    sender.sendOnce(topicId, "two");
    await eventually("both are handled", () => orders.received.all.length === 2);
    expect(orders.received.all[0]).toMatchObject({ text: "one", headers: [["trace", "1"]] });
    await sendLive(() => orders.send("guest", "three"));
    expect(guest.texts).toContain("three");
    expect(guest.listener.reported).toEqual([]);
  });

  it("may offer a wider range of versions: the common one is spoken", async () => {
    await using wire = laterWire({ versions: { min: 1, max: 7 } });
    const orders = await world.started("orders-1");
    await using guest = await foreign(wire);
    const { sender, topicId } = await guest.channelTo("orders");
    expect(await sender.send(topicId, "one")).toBe("delivered");
    await sendLive(() => orders.send("guest", "two"));
  });

  it("is refused a kind of frame that is not known here, whoever dialled", async () => {
    await using wire = new NodeWire();
    const orders = await world.started("orders-1");
    await using guest = await foreign(wire);
    const unknownKind = Uint8Array.of((15 << 3) | 2, 0);

    const secret = (await guest.store.secrets())[0] as Buffer;
    const { channel_id } = await guest.store.openChannel("guest", "orders-1");
    const dialled = await wire.dial({
      address: orders.localAddress,
      secret,
      hello: {
        senderName: "guest-1",
        sourceTopic: "guest",
        listenerName: "orders-1",
        channelId: channel_id,
        epoch: String(guest.store.epoch),
      },
    });
    if ("refused" in dialled) throw new Error(`refused: ${dialled.refused}`);
    (dialled.connection as FrameStream).sendBody(unknownKind);
    expect(await refusalOn(dialled.connection as FrameStream)).toBe("ERROR_CODE_PROTOCOL_VIOLATION");

    await sendLive(() => orders.send("guest", "one"));
    const from = orders.statuses.all.length;
    (guest.listener.latest as FrameStream).sendBody(unknownKind);
    const lost = await orders.saw("peer_disconnected", ({ peer }) => peer === "guest-1", from);
    expect(lost.message).toContain("its kind is unknown to this version");
    // Nothing is lost by it: what was on its way is stored, and the next connection goes on.
    await sendLive(() => orders.send("guest", "two"));
    expect(guest.texts.filter((text) => text === "one").length).toBeGreaterThanOrEqual(1);
    expect(guest.listener.reported).toEqual([]);
  });
});

/** The code with which the connection is refused. */
async function refusalOn(stream: FrameStream): Promise<string | undefined> {
  for (let frame = await stream.receive(); frame !== undefined; frame = await stream.receive()) {
    if (frame["refuse"] !== undefined) return frame["refuse"]["code"];
  }
  return undefined;
}

describe("capabilities", () => {
  const bare: NodeWireOptions = { capabilities: [] };
  const later: NodeWireOptions = { capabilities: ["CAPABILITY_GZIP", "CAPABILITY_ZSTD"] };

  type BaseKind =
    | "challenge"
    | "hello"
    | "welcome"
    | "refuse"
    | "batch"
    | "ack"
    | "goLive"
    | "ping"
    | "pong"
    | "goodbye";
  /** The other kinds: none is sent to a side that has not named its capability. */
  const furtherKinds: { readonly [K in Exclude<FrameKind, BaseKind>]: true } = {
    request: true,
    answer: true,
    cancel: true,
  };

  it("may be none at all: frames that need one do not come", async () => {
    await using wire = new NodeWire(bare);
    const orders = await world.started("orders-1");
    await using guest = await foreign(wire);
    await sendLive(() => orders.send("guest", "one"));
    const { sender, topicId } = await guest.channelTo("orders");
    expect(await sender.send(topicId, "two")).toBe("delivered");
    await orders.stop();
    expect([...wire.kinds].filter((kind) => Object.hasOwn(furtherKinds, kind))).toEqual([]);
    expect([...wire.kinds]).toEqual(expect.arrayContaining(["challenge", "hello", "welcome", "batch", "ack"]));
  });

  it.each([
    ["none at all", bare],
    ["zstd too", later],
  ])("may be %s: long payloads travel in gzip, which everybody reads", async (_what, options) => {
    await using wire = new NodeWire(options);
    const orders = await world.started("orders-1", { tuning: { compressThresholdBytes: 1_000 } });
    await using guest = await foreign(wire);
    await sendLive(() => orders.send("guest", long));
    expect(guest.texts).toContain(long);
    const { sender, topicId } = await guest.channelTo("orders");
    expect(await sender.send(topicId, "plain")).toBe("delivered");
  });

  it("tell what may be sent: zstd that was not offered is a dead letter with its reason", async () => {
    await using wire = new NodeWire(later);
    const orders = await world.started("orders-1", { defaults: { retry: { attempts: 1 } } });
    await using guest = await foreign(wire);
    const { sender, topicId } = await guest.channelTo("orders");
    await sender.isLive();
    // A zstd frame by hand: magic, a single segment of 5 bytes, one last raw block.
    const packed = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, (5 << 3) | 1, 0, 0, ...Buffer.from("hello")]);
    expect(await sender.sendPacked(topicId, packed, "COMPRESSION_ZSTD", 5)).toBe("delivered");
    const letters = await world.query("SELECT error_code, attempts FROM hawser_data.dead_letters");
    if (ownCapabilities.includes(Capability.ZSTD)) {
      expect(orders.texts).toEqual(["hello"]);
      expect(letters).toEqual([]);
    } else {
      expect(orders.texts).toEqual([]);
      expect(letters).toEqual([{ error_code: "not_supported", attempts: 1 }]);
    }
  });
});

describe("two peers without a common version", () => {
  it("name the reason on both sides when a later listener is dialled; messages go through the store", async () => {
    await using wire = laterWire({ versions: { min: 2, max: 3 } });
    const orders = await world.started("orders-1");
    await using guest = await foreign(wire);
    expect((await orders.send("guest", "one")).outcome).toBe("stored");
    const refused = await orders.saw("sender_send_error");
    expect(refused.error).toMatchObject({ code: "unsupported_version", retryable: false });
    expect(refused.message).toContain("the listener speaks protocol versions 2 to 3; this is 1");
    await eventually("the listener was told", () => wire.refusals.includes("ERROR_CODE_UNSUPPORTED_VERSION"));
    await eventually("it came through the store", () => guest.texts.includes("one"));
    expect((await orders.send("guest", "two", { delivery: "at-most-once" })).outcome).toBe("dropped");
  });

  it("name the reason on both sides when a later dialler insists", async () => {
    const orders = await world.started("orders-1");
    await using guest = await foreign(laterWire({ versions: { min: 2, max: 3 } }));
    const { sender, topicId, refused } = await guest.channelTo("orders");
    expect(refused).toBe("ERROR_CODE_UNSUPPORTED_VERSION");
    const told = await orders.saw("handshake_refused", ({ code }) => code === "unsupported_version");
    expect(told.message).toContain("versions 2 to 3");
    expect(await sender.send(topicId, "one")).toBe("stored");
    await eventually("it came through the store", () => orders.texts.includes("one"));
  });
});
