import { describe, expect, it } from "vitest";
import type { OutgoingBatch } from "../../src/wire/index.js";
import { connectPair, identity, welcome } from "./pair.js";

const batch: OutgoingBatch = {
  epoch: identity.epoch,
  delivery: "at-least-once",
  firstNumber: 1,
  topicKey: 3,
  payloads: [new Uint8Array([1, 2, 3]), new Uint8Array(0), new Uint8Array(100_000).fill(9)],
  compressions: [{ index: 0, compression: "gzip", uncompressedBytes: 17 }],
  headers: [
    {
      index: 1,
      headers: [
        ["trace", "ä"],
        ["trace", ""],
      ],
    },
  ],
};

const ack = { epoch: identity.epoch, number: 3, credit: 5, backlog: 0, busy: false, live: true };

describe("a connection between two peers", () => {
  it("tells each side who the other is and what it accepts", async () => {
    await using pair = await connectPair();
    expect(pair.accepted.hello).toEqual(identity);
    expect(pair.accepted.connection.hello).toEqual(identity);
    expect(pair.sender.welcome).toMatchObject({ ...welcome, maxMessageBytes: 1024 * 1024 });
    expect(pair.sender.connection.maxMessageBytes).toBe(1024 * 1024);
    expect(pair.sender.connection.capabilities).toContain("gzip");
  });

  it("carries batches one way and acks the other", async () => {
    await using pair = await connectPair();
    pair.sender.connection.writeGoLive(identity.epoch);
    pair.sender.connection.writeBatch(batch);
    expect(await pair.accepted.events.next()).toEqual({ kind: "goLive" });
    expect(await pair.accepted.events.next()).toEqual({ kind: "batch", batch });
    pair.accepted.connection.writeAck(ack);
    expect(await pair.sender.events.next()).toEqual({ kind: "ack", ack });
  });

  it("ends in good order after Goodbye", async () => {
    await using pair = await connectPair();
    pair.sender.connection.writeGoodbye();
    expect((await pair.accepted.events.next()).kind).toBe("goodbye");
    pair.accepted.connection.writeAck(ack);
    pair.accepted.connection.writeGoodbye({ epoch: identity.epoch, number: 3 });
    pair.accepted.connection.end();
    expect(await pair.sender.events.next()).toEqual({ kind: "ack", ack });
    expect(await pair.sender.events.next()).toEqual({ kind: "goodbye", goodbye: { epoch: identity.epoch, number: 3 } });
    expect(await pair.sender.events.next()).toEqual({ kind: "closed", code: undefined, message: undefined });
    expect(await pair.accepted.events.next()).toEqual({ kind: "closed", code: undefined, message: undefined });
  });
});
