/**
 * Refusals of a running peer on its socket, with their codes: docs/protocol.md's table, and the vectors.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { acceptedVectors, bytesOfHex, frameVectors, longFrameVectors, refusedVectors } from "../wire/vectors.js";
import type { FrameJson, HelloJson } from "./peer/wire.js";
import { RawDialler } from "./raw.js";

describe("a peer's socket", () => {
  let world: PeerWorld;
  let peer: TestPeer;
  let secret: Uint8Array;
  let identity: HelloJson;
  const maxMessageBytes = 1_000;

  beforeAll(async () => {
    world = await peerWorld();
    peer = await world.started("orders-1", { maxMessageBytes });
    const [row] = await world.query<{ secret: Buffer }>("SELECT secret FROM hawser_data.mesh_secret");
    secret = row!.secret;
    const [key] = await world.query<{ key: number }>(
      "SELECT channel_id AS key FROM hawser.open_channel('guest-1', 'guest', 'orders-1')",
    );
    await world.query("SELECT FROM hawser.end_ownership('guest-1', true)");
    const [taken] = await world.query<{ epoch: number }>("SELECT epoch FROM hawser.own_name('guest-1', 'twin', 1)");
    identity = {
      senderName: "guest-1",
      sourceTopic: "guest",
      listenerName: "orders-1",
      channelId: key!.key,
      epoch: String(taken!.epoch),
    };
  });
  afterAll(() => world[Symbol.asyncDispose]());

  const batch = (more: FrameJson = {}): FrameJson => ({
    batch: {
      epoch: identity.epoch,
      delivery: "DELIVERY_AT_LEAST_ONCE",
      firstNumber: "1",
      topicId: 1,
      payloads: ["YQ=="],
      ...more,
    },
  });

  it.each<[what: string, code: string, said: (identity: HelloJson) => [HelloJson, FrameJson?]]>([
    ["a changed name", "UNAUTHENTICATED", (hello) => [hello, { senderName: "guest-2" }]],
    ["a changed epoch", "UNAUTHENTICATED", (hello) => [hello, { epoch: "1" }]],
    ["a version that was not offered", "UNSUPPORTED_VERSION", (hello) => [{ ...hello, version: 2 }]],
    ["another listener's name", "WRONG_PEER", (hello) => [{ ...hello, listenerName: "orders-2" }]],
    ["a channel that there is not", "WRONG_PEER", (hello) => [{ ...hello, channelId: 2_000_000_000 }]],
    ["another sender's channel", "WRONG_PEER", (hello) => [{ ...hello, senderName: "guest-2" }]],
    ["another source topic", "WRONG_PEER", (hello) => [{ ...hello, sourceTopic: "guests" }]],
    ["an older epoch", "FENCED", (hello) => [{ ...hello, epoch: "1" }]],
    ["an epoch that is yet to come", "FENCED", (hello) => [{ ...hello, epoch: String(Number(hello.epoch) + 1) }]],
  ])("refuses a Hello with %s: %s", async (_what, code, said) => {
    using dialler = await RawDialler.challenged(peer.localAddress);
    dialler.hello(secret, ...said(identity));
    expect(await dialler.rest()).toEqual([`ERROR_CODE_${code}`]);
  });

  it("refuses a Hello that another secret proves", async () => {
    using dialler = await RawDialler.challenged(peer.localAddress);
    dialler.hello(Buffer.alloc(32, 7), identity);
    expect(await dialler.rest()).toEqual(["ERROR_CODE_UNAUTHENTICATED"]);
  });

  it("refuses another preamble, and says so", async () => {
    using dialler = await RawDialler.to(peer.localAddress, "GET / HTTP/1.1\r\n\r\n");
    expect(await dialler.rest()).toEqual(["ERROR_CODE_PROTOCOL_VIOLATION"]);
  });

  it("refuses a frame of more than 4096 bytes before Welcome, by its length alone", async () => {
    using dialler = await RawDialler.challenged(peer.localAddress);
    dialler.sendBytes(Uint8Array.of(0, 0, 0x10, 0x01));
    expect(await dialler.rest()).toEqual(["ERROR_CODE_PROTOCOL_VIOLATION"]);
  });

  it("refuses the vectors of refused frames, in the place of Hello and after Welcome", async () => {
    for (const { name, frameHex } of refusedVectors) {
      using atOnce = await RawDialler.challenged(peer.localAddress);
      atOnce.sendBytes(bytesOfHex(frameHex));
      expect(await atOnce.rest(), name).toEqual(["ERROR_CODE_PROTOCOL_VIOLATION"]);
      using later = await welcomed();
      later.sendBytes(bytesOfHex(frameHex));
      expect((await later.rest()).at(-1), name).toBe("ERROR_CODE_PROTOCOL_VIOLATION");
    }
  });

  it("refuses good frames in the place of Hello", async () => {
    for (const { name, frameHex, json } of [...frameVectors, ...longFrameVectors, ...acceptedVectors]) {
      if (["hello", "refuse"].includes(Object.keys(json as object)[0]!)) continue;
      using dialler = await RawDialler.challenged(peer.localAddress);
      dialler.sendBytes(bytesOfHex(frameHex));
      expect(await dialler.rest(), name).toEqual(["ERROR_CODE_PROTOCOL_VIOLATION"]);
    }
  });

  it("closes without an answer when it is refused itself", async () => {
    using dialler = await RawDialler.challenged(peer.localAddress);
    dialler.send({ refuse: { code: "ERROR_CODE_BUSY", message: "another time" } });
    expect(await dialler.rest()).toEqual([]);
  });

  async function welcomed(): Promise<RawDialler> {
    const dialler = await RawDialler.challenged(peer.localAddress);
    dialler.hello(secret, identity);
    expect((await dialler.receive())?.["welcome"]).toMatchObject({ maxMessageBytes: String(maxMessageBytes) });
    return dialler;
  }

  it.each<[what: string, frame: () => FrameJson]>([
    ["a second Hello", () => ({ hello: { ...identity, version: 1, nonce: nonce(), mac: nonce() } })],
    ["a Challenge", () => ({ challenge: { nonce: nonce(), minVersion: 1, maxVersion: 1 } })],
    ["a Welcome", () => ({ welcome: { credit: "1", maxMessageBytes: "1", mac: nonce() } })],
    ["an Ack", () => ({ ack: { credit: "1" } })],
    ["a Batch of another epoch", () => batch({ epoch: "1" })],
    ["GoLive of another epoch", () => ({ goLive: { epoch: "1" } })],
    ["a payload that is too long", () => batch({ payloads: [Buffer.alloc(maxMessageBytes + 1).toString("base64")] })],
    [
      "a payload that declares too much",
      () =>
        batch({ compressions: [{ compression: "COMPRESSION_GZIP", uncompressedBytes: String(maxMessageBytes + 1) }] }),
    ],
  ])("refuses %s after Welcome", async (_what, frame) => {
    using dialler = await welcomed();
    dialler.send(frame());
    expect((await dialler.rest()).at(-1)).toBe("ERROR_CODE_PROTOCOL_VIOLATION");
  });

  it("refuses a frame beyond its greatest message and the overhead, by its length alone", async () => {
    using dialler = await welcomed();
    const length = Buffer.alloc(4);
    length.writeUInt32BE(maxMessageBytes + 4_194_304 + 1);
    dialler.sendBytes(length);
    expect((await dialler.rest()).at(-1)).toBe("ERROR_CODE_PROTOCOL_VIOLATION");
  });

  it("answers Goodbye with its own and closes, whatever follows", async () => {
    using dialler = await welcomed();
    dialler.send({ goodbye: {} });
    dialler.send({ goLive: { epoch: identity.epoch } });
    const come = await dialler.rest();
    expect(come.filter((kind) => kind !== "ack")).toEqual(["goodbye"]);
  });

  it("refuses the older of two connections of a channel as fenced, and keeps the newer", async () => {
    using older = await welcomed();
    using newer = await welcomed();
    expect((await older.rest()).at(-1)).toBe("ERROR_CODE_FENCED");
    newer.send({ goLive: { epoch: identity.epoch } });
    newer.send({ ping: { token: "18446744073709551615" } });
    const come = [await newer.receive(), await newer.receive()];
    expect(come).toContainEqual({ pong: { token: "18446744073709551615" } });
    expect(come.find((frame) => frame?.["ack"] !== undefined)?.["ack"]).toMatchObject({ live: true });
  });
});

function nonce(): string {
  return Buffer.alloc(32, 1).toString("base64");
}
