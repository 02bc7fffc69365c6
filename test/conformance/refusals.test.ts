/**
 * What a running peer refuses on its socket, by its database, its limits and the vectors; test/transport/ has what a listener
 * refuses by itself.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Delivery, ErrorNumber, type Frame, type HelloFields } from "../../src/jobs-and-peers/wire/index.js";
import { type PeerWorld, peerWorld, type TestPeer } from "../peer/support/world.js";
import { helloTo, RawClient } from "../transport/raw-client.js";
import { bytesOfHex, refusedVectors } from "../wire/vectors.js";

describe("a running peer", () => {
  let world: PeerWorld;
  let peer: TestPeer;
  let secret: Uint8Array;
  let identity: HelloFields;
  const maxMessageBytes = 1_000;

  beforeAll(async () => {
    world = await peerWorld({ keepsConnections: true });
    peer = await world.started("orders-1", { maxMessageBytes });
    const [row] = await world.query<{ secret: Buffer }>("SELECT secret FROM hawser_peer_data.mesh_secret");
    secret = row!.secret;
    const [channel] = await world.query<{ id: number }>(
      "SELECT channel_id AS id FROM hawser.open_channel('guest-1', 'guest', 'orders-1')",
    );
    await world.query("SELECT FROM hawser.end_ownership('guest-1', true)");
    const [taken] = await world.query<{ epoch: number }>("SELECT epoch FROM hawser.own_name('guest-1', 'twin', 1)");
    identity = {
      senderName: "guest-1",
      sourceTopic: "guest",
      listenerName: "orders-1",
      channelId: channel!.id,
      epoch: taken!.epoch,
    };
  });
  afterAll(() => world[Symbol.asyncDispose]());

  /** A connection with the listener's Challenge, to which a Hello was sent, if it is given. */
  async function dialled(hello?: Partial<HelloFields> & { readonly secret?: Uint8Array }): Promise<RawClient> {
    const client = await RawClient.connect(Number(peer.localAddress.split(":").at(-1)));
    const challenge = await client.begin();
    if (hello !== undefined) client.send(helloTo(challenge, { secret, ...identity, ...hello }));
    return client;
  }

  async function welcomed(): Promise<RawClient> {
    const client = await dialled({});
    expect(await client.frames.next()).toMatchObject({ $case: "welcome", value: { maxMessageBytes } });
    return client;
  }

  /** What comes after the Challenge, until the connection ends: kinds of frames, or the code of a Refuse. */
  async function answersOf(client: RawClient): Promise<string[]> {
    await client.closed;
    const said = client.frames.all.slice(1);
    return said.map((frame) => (frame.$case === "refuse" ? ErrorNumber[frame.value.code] : frame.$case));
  }

  it.each<[what: string, code: string, changes: () => Parameters<typeof dialled>[0]]>([
    ["that another secret proves", "UNAUTHENTICATED", () => ({ secret: new Uint8Array(32).fill(7) })],
    ["for a channel that there is not", "WRONG_PEER", () => ({ channelId: 2_000_000_000 })],
    ["for another sender's channel", "WRONG_PEER", () => ({ senderName: "guest-2" })],
    ["for another source topic", "WRONG_PEER", () => ({ sourceTopic: "guests" })],
    ["of an older epoch", "FENCED", () => ({ epoch: 1 })],
    ["of an epoch that is yet to come", "FENCED", () => ({ epoch: identity.epoch + 1 })],
  ])("refuses a Hello %s: %s", async (_what, code, changes) => {
    using client = await dialled(changes());
    expect(await answersOf(client)).toEqual([code]);
  });

  it("refuses the vectors of refused frames, in the place of Hello and after Welcome", async () => {
    for (const { name, frameHex } of refusedVectors) {
      using atOnce = await dialled();
      atOnce.socket.write(bytesOfHex(frameHex));
      expect(await answersOf(atOnce), name).toEqual(["PROTOCOL_VIOLATION"]);
      using later = await welcomed();
      later.socket.write(bytesOfHex(frameHex));
      expect((await answersOf(later)).at(-1), name).toBe("PROTOCOL_VIOLATION");
    }
  });

  it("refuses a payload above its limit", async () => {
    using client = await welcomed();
    const batch: Frame = {
      $case: "batch",
      value: {
        epoch: identity.epoch,
        delivery: Delivery.AT_LEAST_ONCE,
        firstNumber: 1,
        topicId: 1,
        payloads: [new Uint8Array(maxMessageBytes + 1)],
        compressions: [],
        headers: [],
      },
    };
    client.send(batch);
    expect((await answersOf(client)).at(-1)).toBe("PROTOCOL_VIOLATION");
  });

  it("refuses a frame above its limit for messages and the overhead, by its length alone", async () => {
    using client = await welcomed();
    const length = Buffer.alloc(4);
    length.writeUInt32BE(maxMessageBytes + 4_194_304 + 1);
    client.socket.write(length);
    expect((await answersOf(client)).at(-1)).toBe("PROTOCOL_VIOLATION");
  });

  it("refuses the older of two connections of a channel as fenced, and keeps the newer", async () => {
    using older = await welcomed();
    using newer = await welcomed();
    expect((await answersOf(older)).at(-1)).toBe("FENCED");
    const token = "18446744073709551615";
    newer.send({ $case: "goLive", value: { epoch: identity.epoch } }, { $case: "ping", value: { token } });
    const come = [await newer.frames.next(), await newer.frames.next()];
    expect(come).toContainEqual({ $case: "pong", value: { token } });
    expect(come).toContainEqual({ $case: "ack", value: expect.objectContaining({ live: true }) });
  });
});
