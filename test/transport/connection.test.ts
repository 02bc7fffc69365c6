import { Socket } from "node:net";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { ErrorCode } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { writeHighWaterBytes } from "../../src/jobs-and-peers/transport/socket-writer.js";
import { type Batch, Compression, Delivery, type Frame, ownCapabilities } from "../../src/jobs-and-peers/wire/index.js";
import { ManualClock } from "../support/manual-clock.js";
import { batchArbitrary } from "../wire/arbitraries.js";
import { encode } from "../wire/coding.js";
import type { Accepted, Pair } from "./pair.js";
import { connectPair, dialTest, identity, TestListener, welcome } from "./pair.js";
import { helloTo, RawClient } from "./raw-client.js";
import { settle } from "./settle.js";
import { TcpProxy } from "./tcp-proxy.js";

const { epoch } = identity;
const headers = [
  { name: "trace", value: "ä" },
  { name: "trace", value: "" },
];
const batch: Batch = {
  epoch,
  delivery: Delivery.AT_LEAST_ONCE,
  firstNumber: 1,
  topicId: 3,
  payloads: [new Uint8Array([1, 2, 3]), new Uint8Array(0), new Uint8Array(100_000).fill(9)],
  compressions: [{ index: 0, compression: Compression.GZIP, uncompressedBytes: 17 }],
  headers: [{ index: 1, headers }],
};
const plain: Batch = { ...batch, compressions: [], headers: [] };
const ack = { epoch, number: 3, credit: 5, backlog: 0, busy: false, live: true, queued: 0 };
const inGoodOrder = { kind: "closed", code: undefined, message: undefined };

/** A connection whose dialler is made by hand, established. */
async function establishRaw(listener: TestListener): Promise<{ client: RawClient; accepted: Accepted }> {
  const client = await RawClient.connect(listener.port);
  client.send(helloTo(await client.begin()));
  expect((await client.frames.next()).$case).toBe("welcome");
  return { client, accepted: await listener.accepted.next() };
}

describe("a connection between two peers", () => {
  it("gives each side the other's identity, and carries batches one way and acks the other", async () => {
    await using pair = await connectPair();
    const { sender, accepted } = pair;
    expect(accepted.connection.hello).toEqual(identity);
    expect(accepted.welcomed).toBe(welcome);
    expect(sender.welcome).toEqual({ ...welcome, maxMessageBytes: 1024 * 1024, capabilities: expect.any(Array) });
    expect(sender.connection.maxMessageBytes).toBe(1024 * 1024);
    expect(sender.connection.capabilities).toEqual(ownCapabilities);
    sender.connection.writeGoLive(epoch);
    sender.connection.writeBatch(batch);
    expect(await accepted.events.next()).toEqual({ kind: "goLive" });
    expect(await accepted.events.next()).toEqual({ kind: "batch", batch });
    accepted.connection.writeAck(ack);
    expect(await sender.events.next()).toEqual({ kind: "ack", ack });
  });

  it("preserves content and order of all messages", async () => {
    await using pair = await connectPair({ listen: { maxMessageBytes: 1 << 30 } });
    await fc.assert(
      fc.asyncProperty(fc.array(batchArbitrary, { minLength: 1, maxLength: 10 }), async (batches) => {
        const sent = batches.map((one) => ({ ...one, epoch }));
        for (const one of sent) pair.sender.connection.writeBatch(one);
        for (const one of sent) {
          const event = await pair.accepted.events.next();
          const came = event.kind === "batch" ? encode({ $case: "batch", value: event.batch }) : new Uint8Array(0);
          expect(Buffer.compare(came, encode({ $case: "batch", value: one }))).toBe(0);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("combines the frames of several promises and calls of one tick into one write", async () => {
    await using pair = await connectPair();
    await settle();
    const writes = vi.spyOn(Socket.prototype, "write");
    const { connection } = pair.sender;
    for (let firstNumber = 1; firstNumber <= 50; firstNumber++) {
      connection.writeBatch({ ...plain, firstNumber, payloads: [new Uint8Array(10)] });
      await Promise.resolve();
    }
    connection.writeGoLive(epoch);
    for (let i = 0; i < 50; i++) expect((await pair.accepted.events.next()).kind).toBe("batch");
    expect((await pair.accepted.events.next()).kind).toBe("goLive");
    // Beside a ping, where this has taken long, and what sockets write that tests before have left.
    const sockets = writes.mock.contexts as Socket[];
    const own = writes.mock.calls.filter((_, nth) => sockets[nth]!.remotePort === pair.listener.port);
    expect(own.filter(([bytes]) => (bytes as Uint8Array).length > 50)).toHaveLength(1);
    writes.mockRestore();
  });

  it("sends only the newest of several acks in a tick", async () => {
    await using pair = await connectPair();
    for (let number = 1; number <= 100; number++) pair.accepted.connection.writeAck({ ...ack, number });
    pair.accepted.connection.writeGoodbye({ epoch, number: 100 });
    expect(await pair.sender.events.next()).toEqual({ kind: "ack", ack: { ...ack, number: 100 } });
    expect((await pair.sender.events.next()).kind).toBe("goodbye");
  });

  it("rejects an oversized message at the call, and continues", async () => {
    await using pair = await connectPair();
    const invalid = expect.objectContaining({ code: "invalid_argument" });
    const payloads = [new Uint8Array(pair.sender.connection.maxMessageBytes + protocolConstants.frameOverheadBytes)];
    expect(() => pair.sender.connection.writeBatch({ ...batch, payloads })).toThrow(invalid);
    pair.sender.connection.writeBatch(batch);
    expect(await pair.accepted.events.next()).toEqual({ kind: "batch", batch });
  });

  it("ends at the receiver of a frame that violates the rules", async () => {
    await using pair = await connectPair();
    pair.sender.connection.writeBatch({ ...batch, topicId: 0 });
    const closed = { kind: "closed", code: "protocol_violation" };
    expect(await pair.accepted.events.next()).toMatchObject(closed);
    expect(await pair.sender.events.next()).toMatchObject(closed);
  });

  it("ends gracefully after Goodbye", async () => {
    await using pair = await connectPair();
    pair.sender.connection.writeGoodbye();
    expect((await pair.accepted.events.next()).kind).toBe("goodbye");
    pair.accepted.connection.writeAck(ack);
    pair.accepted.connection.writeGoodbye({ epoch, number: 3 });
    pair.accepted.connection.end();
    expect(await pair.sender.events.next()).toEqual({ kind: "ack", ack });
    expect(await pair.sender.events.next()).toEqual({ kind: "goodbye", goodbye: { epoch, number: 3 } });
    expect(await pair.sender.events.next()).toEqual(inGoodOrder);
    expect(await pair.accepted.events.next()).toEqual(inGoodOrder);
  });

  it("ignores writes after Goodbye, which the other side would refuse", async () => {
    await using pair = await connectPair();
    const { sender, accepted } = pair;
    sender.connection.writeGoodbye();
    sender.connection.writeBatch(batch);
    sender.connection.writeGoLive(epoch);
    sender.connection.writeGoodbye();
    expect((await accepted.events.next()).kind).toBe("goodbye");
    accepted.connection.writeGoodbye({ epoch, number: 3 });
    accepted.connection.writeAck(ack);
    accepted.connection.end();
    expect(await sender.events.next()).toMatchObject({ kind: "goodbye" });
    expect(await sender.events.next()).toEqual(inGoodOrder);
    expect(await accepted.events.next()).toEqual(inGoodOrder);
  });

  it("sends everything written before it ends", async () => {
    await using pair = await connectPair();
    for (let i = 0; i < 50; i++) pair.sender.connection.writeBatch(batch);
    pair.sender.connection.end();
    pair.sender.connection.writeBatch(batch);
    for (let i = 0; i < 50; i++) expect((await pair.accepted.events.next()).kind).toBe("batch");
    expect(await pair.accepted.events.next()).toMatchObject({ kind: "closed", code: "connection_lost" });
    expect(await pair.sender.events.next()).toEqual(inGoodOrder);
  });

  it("calls no handler after destroy, and ignores writes", async () => {
    await using pair = await connectPair();
    pair.accepted.connection.writeAck(ack);
    pair.sender.connection.destroy();
    pair.sender.connection.writeBatch(batch);
    pair.sender.connection.end();
    expect(await pair.accepted.events.next()).toMatchObject({ kind: "closed", code: "connection_lost" });
    pair.accepted.connection.writeAck(ack);
    pair.accepted.connection.resume();
    await settle();
    expect(pair.sender.events.all).toEqual([]);
    expect(pair.accepted.events.all).toHaveLength(1);
  });

  it("reports a cut of the network on both sides", async () => {
    await using listener = await TestListener.start();
    await using proxy = await TcpProxy.to(listener.port);
    const sender = await dialTest(proxy.address);
    const accepted = await listener.accepted.next();
    proxy.cut();
    const lost = { kind: "closed", code: "connection_lost" };
    expect(await sender.events.next()).toMatchObject(lost);
    expect(await accepted.events.next()).toMatchObject(lost);
    await settle();
    expect(sender.events.all).toHaveLength(1);
    expect(accepted.events.all).toHaveLength(1);
  });
});

describe("backpressure", () => {
  const long = { ...plain, payloads: [new Uint8Array(50_000)] };

  /** Writes while the connection takes it, turn by turn, until it takes no more. */
  async function fill({ sender }: Pair): Promise<number> {
    let count = 0;
    for (let calm = 0; calm < 50; calm++) {
      for (; sender.connection.canWrite; calm = 0) sender.connection.writeBatch({ ...long, firstNumber: ++count });
      await new Promise((resolve) => setImmediate(resolve));
    }
    return count;
  }

  it("reports when the socket cannot keep up, and when it can again", async () => {
    await using pair = await connectPair();
    const { connection } = pair.sender;
    expect(connection.canWrite).toBe(true);
    expect(connection.bufferedBytes).toBe(0);
    pair.accepted.connection.pause();
    const count = await fill(pair);
    expect(connection.bufferedBytes).toBeGreaterThanOrEqual(writeHighWaterBytes / 2);
    expect(connection.bufferedBytes).toBeLessThan(writeHighWaterBytes + 60_000);
    const drains = pair.sender.events.all.length;
    pair.accepted.connection.resume();
    for (let number = 1; number <= count; number++) {
      expect(await pair.accepted.events.next()).toMatchObject({ kind: "batch", batch: { firstNumber: number } });
    }
    await settle();
    expect(pair.sender.events.all.slice(drains)).toEqual([{ kind: "drain" }]);
    expect(connection.canWrite).toBe(true);
    expect(connection.bufferedBytes).toBe(0);
  });

  it("keeps little more than the bytes themselves for a listener that does not read", async () => {
    await using pair = await connectPair();
    pair.accepted.connection.pause();
    await fill(pair);
    const { connection } = pair.sender;
    const before = { memory: process.memoryUsage().arrayBuffers, bytes: connection.bufferedBytes };
    // One small message for each turn of the event loop: each would leave in a write of its own.
    for (let turn = 0; turn < 10_000; turn++) {
      connection.writeBatch({ ...long, payloads: [new Uint8Array(10)] });
      await new Promise((resolve) => setImmediate(resolve));
    }
    const written = connection.bufferedBytes - before.bytes;
    expect(written).toBeGreaterThan(10_000 * 10);
    expect(process.memoryUsage().arrayBuffers - before.memory).toBeLessThan(16 * 1024 * 1024);
  });

  it("delivers nothing after pause, not even frames that have arrived", async () => {
    await using listener = await TestListener.start();
    const { client, accepted } = await establishRaw(listener);
    const events = accepted.events;
    const push = events.push.bind(events);
    events.push = (event) => {
      accepted.connection.pause();
      push(event);
    };
    // All three frames come in one chunk.
    const goLive: Frame = { $case: "goLive", value: { epoch } };
    client.send(goLive, goLive, goLive);
    for (let count = 1; count <= 3; count++) {
      await events.next();
      await settle();
      expect(events.all).toHaveLength(count);
      accepted.connection.resume();
      expect(events.all).toHaveLength(count);
    }
    client[Symbol.dispose]();
  });

  it("does not pile up answers for a dialler that does not read", async () => {
    await using listener = await TestListener.start();
    const { client } = await establishRaw(listener);
    client.send(...Array.from({ length: 1000 }, (_, i): Frame => ({ $case: "ping", value: { token: String(i) } })));
    let last = "";
    let pongs = 0;
    while (last !== "999") {
      const frame = await client.frames.next();
      if (frame.$case === "pong") {
        last = frame.value.token;
        pongs++;
      }
    }
    expect(pongs).toBeLessThan(100);
    client[Symbol.dispose]();
  });
});

describe("a protocol violation after the handshake", () => {
  const changed = (changes: Partial<Batch>): Frame => ({ $case: "batch", value: { ...batch, ...changes } });
  const limit = 1024 * 1024;
  const long = { ...plain, payloads: [new Uint8Array(limit + 1)] };
  const expands = { index: 0, compression: Compression.GZIP, uncompressedBytes: limit + 1 } as const;
  const challenge = { nonce: new Uint8Array(32), minVersion: 1, maxVersion: 1, capabilities: [] };
  it.each<[string, Frame[]]>([
    ["a batch of another epoch", [changed({ epoch: epoch + 1 })]],
    ["GoLive of another epoch", [{ $case: "goLive", value: { epoch: epoch - 1 } }]],
    ["a second Hello", [helloTo(challenge)]],
    ["an Ack from the dialler", [{ $case: "ack", value: ack }]],
    ["a payload above the limit", [changed(long)]],
    ["a declared length above the limit", [changed({ compressions: [expands] })]],
    ["a batch after Goodbye", [{ $case: "goodbye", value: { epoch: 0, number: 0 } }, changed({})]],
  ])('of kind "%s" is refused with its code', async (_, frames) => {
    await using listener = await TestListener.start();
    const { client, accepted } = await establishRaw(listener);
    client.send(...frames);
    expect(await client.frames.next()).toMatchObject({
      $case: "refuse",
      value: { code: ErrorCode.PROTOCOL_VIOLATION },
    });
    await client.closed;
    await settle();
    expect(accepted.events.all.filter(({ kind }) => kind === "batch")).toEqual([]);
    expect(accepted.events.all.at(-1)).toMatchObject({ kind: "closed", code: "protocol_violation" });
    expect(listener.refusals.all).toEqual([]);
  });

  it("is reported to a dialler that keeps writing", async () => {
    await using pair = await connectPair();
    const { connection } = pair.sender;
    const long = { ...plain, payloads: [new Uint8Array(500_000)] };
    // The listener's epoch is the Hello's: these are violations only there. More than the kernel takes at once.
    for (let i = 0; i < 60; i++) connection.writeBatch({ ...long, epoch: epoch + 1 });
    const closed = { kind: "closed", code: "protocol_violation" };
    expect(await pair.accepted.events.next()).toMatchObject(closed);
    let event = await pair.sender.events.next();
    while (event.kind === "drain") event = await pair.sender.events.next();
    expect(event).toMatchObject(closed);
  });

  it("ends the sender's connection with the code of the listener's Refuse", async () => {
    await using pair = await connectPair();
    // The listener's epoch is the Hello's: this batch is a violation only there.
    pair.sender.connection.writeBatch({ ...batch, epoch: epoch + 1 });
    expect(await pair.sender.events.next()).toMatchObject({
      kind: "closed",
      code: "protocol_violation",
      message: expect.stringContaining("epoch"),
    });
  });
});

describe("a silent connection", () => {
  const { pingAfterMs, pingTimeoutMs } = protocolConstants;

  it("is kept alive by pings and their answers", async () => {
    const clocks = { near: new ManualClock(), far: new ManualClock() };
    await using pair = await connectPair({ listen: { clock: clocks.far }, dial: { clock: clocks.near } });
    await settle();
    for (let second = 0; second < 120; second++) {
      clocks.near.advance(1000);
      await settle();
    }
    expect(pair.sender.events.all).toEqual([]);
    pair.sender.connection.writeBatch(batch);
    expect((await pair.accepted.events.next()).kind).toBe("batch");
  });

  it("ends on both sides when the network swallows everything", async () => {
    const clocks = { near: new ManualClock(), far: new ManualClock() };
    await using listener = await TestListener.start({ clock: clocks.far });
    await using proxy = await TcpProxy.to(listener.port);
    const sender = await dialTest(proxy.address, { clock: clocks.near });
    const accepted = await listener.accepted.next();
    await settle();
    proxy.stall();
    for (const [clock, { events }] of [
      [clocks.near, sender],
      [clocks.far, accepted],
    ] as const) {
      clock.advance(pingAfterMs + pingTimeoutMs - 1);
      await settle();
      expect(events.all).toEqual([]);
      clock.advance(1);
      expect(events.all).toMatchObject([{ kind: "closed", code: "connection_lost" }]);
    }
  });

  it("outlasts a listener that does not read for a long time", async () => {
    const clocks = { near: new ManualClock(), far: new ManualClock() };
    await using pair = await connectPair({ listen: { clock: clocks.far }, dial: { clock: clocks.near } });
    pair.accepted.connection.pause();
    await settle();
    for (let second = 0; second < 300; second++) {
      clocks.near.advance(1000);
      clocks.far.advance(1000);
      await settle();
    }
    pair.sender.connection.writeBatch(batch);
    pair.accepted.connection.resume();
    expect((await pair.accepted.events.next()).kind).toBe("batch");
    expect(pair.sender.events.all).toEqual([]);
  });
});
