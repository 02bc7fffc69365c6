import { describe, expect, it } from "vitest";
import { SenderBench } from "./support.js";

describe("a sender's channel that goes live", () => {
  it("holds messages during the first dial, and sends them after GoLive", () => {
    const bench = new SenderBench();
    bench.send(0, "a", "b");
    expect(bench.take()).toEqual([]);
    bench.connect("c1", 5);
    expect(bench.take()).toEqual(["write GoLive", "write 1 a,b"]);
  });

  it("resolves nothing when a message is written, and delivered when it is acknowledged", () => {
    const bench = SenderBench.live();
    bench.send(1, "a", "b");
    expect(bench.take()).toEqual(["write GoLive", "write 1 a,b"]);
    bench.ack("c1", 2, 1);
    expect(bench.take()).toEqual(["a delivered"]);
    bench.ack("c1", 3, 2);
    expect(bench.take()).toEqual(["b delivered"]);
  });

  it("resolves stored for what may be in the queue, whether an Ack or a Welcome says so", () => {
    const bench = SenderBench.live();
    bench.send(1, "a", "b", "c", "d");
    bench.take();
    bench.ack("c1", 2, 2, { queued: 1 });
    expect(bench.take()).toEqual(["a stored", "b delivered"]);
    // What the listener has not committed is not confirmed by it.
    bench.connect("c2", 3, 0, { epoch: 7, number: 3 }, 500, 4);
    expect(bench.take()).toEqual(["c stored", "write GoLive", "write 4 d"]);
    bench.ack("c2", 4, 4, { queued: 3 });
    expect(bench.take()).toEqual(["d delivered"]);
  });

  it("ignores an Ack of another epoch, and one of a closed connection", () => {
    const bench = SenderBench.live();
    bench.send(1, "a");
    bench.take();
    bench.ack("c1", 2, 1, { epoch: 6, number: 1 });
    bench.channel.onClosed("c1", 3);
    bench.ack("c1", 4, 1);
    expect(bench.take()).toEqual(["store 1"]);
  });

  it("lets an at-most-once message skip the queue only if no message is before it", () => {
    const bench = SenderBench.live();
    const atOnce = () => bench.channel.writesAtOnce(10);
    expect(atOnce()).toBe(true);
    bench.ack("c1", 0, 1, { live: true });
    expect(atOnce()).toBe(true);
    expect(bench.channel.writesAtOnce(1_000_000)).toBe(false);
    bench.channel.pauseWriting();
    expect(atOnce()).toBe(false);
    // A numbered message waits for the connection, and then an at-most-once one behind it.
    bench.send(1, "a");
    bench.channel.onWritable("c1", 1);
    expect(atOnce()).toBe(true);
    bench.channel.pauseWriting();
    bench.send(1, "~b");
    bench.channel.onWritable("c1", 1);
    expect(atOnce()).toBe(true);
    bench.ack("c1", 1, 2, { live: true, credit: 1 });
    bench.send(2, "c", "d");
    expect(atOnce()).toBe(false);
    bench.channel.onClosed("c1", 3);
    expect(atOnce()).toBe(false);
  });

  it("stays within the credit, except that one message may always be in flight", () => {
    const bench = new SenderBench();
    bench.connect("c1", 0, 0, { epoch: 0, number: 0 }, 25);
    bench.send(1, "a", "b", "c");
    expect(bench.take()).toEqual(["write GoLive", "write 1 a,b"]);
    bench.ack("c1", 2, 2, { credit: 5 });
    expect(bench.take()).toEqual(["a delivered", "b delivered", "write 3 c"]);
  });

  it("writes at-most-once messages in order with the others once live", () => {
    const bench = new SenderBench();
    bench.connect("c1", 0, 0, { epoch: 0, number: 0 }, 25);
    bench.ack("c1", 1, 0, { credit: 25 });
    bench.send(2, "a", "~x", "b", "c", "~y");
    expect(bench.take()).toEqual(["write GoLive", "write 1 a", "write 0 ~x", "~x sent", "write 2 b"]);
    bench.ack("c1", 3, 2, { credit: 25 });
    expect(bench.take()).toEqual(["a delivered", "b delivered", "write 3 c", "write 0 ~y", "~y sent"]);
  });

  it("writes nothing while the socket is full", () => {
    const bench = SenderBench.live();
    bench.channel.pauseWriting();
    bench.send(1, "a", "~x");
    expect(bench.take()).toEqual(["write GoLive"]);
    bench.channel.onWritable("c1", 2);
    expect(bench.take()).toEqual(["write 0 ~x", "~x sent", "write 1 a"]);
  });
});

describe("a sender's channel without a live listener", () => {
  it("stores at once while it is down, one insert at a time, in order", () => {
    const bench = SenderBench.down();
    bench.send(1, "a", "b", "c", "d", "e");
    expect(bench.take()).toEqual(["store 1,2,3,4"]);
    bench.send(2, "f");
    expect(bench.take()).toEqual([]);
    bench.channel.onStored(3);
    expect(bench.take()).toEqual(["a stored", "b stored", "c stored", "d stored", "announce", "store 5,6"]);
  });

  it("resolves nothing on an unknown commit, and retries the same insert later", () => {
    const bench = SenderBench.down();
    bench.send(1, "a");
    bench.channel.onStoreFailed(2);
    expect(bench.take()).toEqual(["store 1"]);
    expect(bench.channel.deadline).toBe(52);
    bench.channel.tick(52);
    expect(bench.take()).toEqual(["store 1"]);
    bench.channel.onStored(53);
    expect(bench.take()).toEqual(["a stored", "announce"]);
  });

  it("stores while the listener's backlog is long, and goes live when it is short", () => {
    const bench = new SenderBench();
    bench.connect("c1", 0, 100);
    bench.send(1, "a");
    expect(bench.take()).toEqual(["store 1"]);
    bench.channel.onStored(2);
    bench.ack("c1", 3, 0, { backlog: 3, live: false });
    expect(bench.take()).toEqual(["a stored", "announce", "write GoLive"]);
    bench.send(4, "b");
    expect(bench.take()).toEqual(["write 2 b"]);
  });

  it("stores written and unacknowledged messages when the connection ends", () => {
    const bench = SenderBench.live();
    bench.send(1, "a", "b");
    bench.ack("c1", 2, 1);
    bench.take();
    bench.channel.onClosed("c1", 3);
    expect(bench.take()).toEqual(["store 2"]);
  });

  it("sends messages that are not certainly stored on a new connection, even if an insert is pending", () => {
    const bench = SenderBench.down();
    bench.send(1, "a", "b");
    bench.connect("c1", 2);
    expect(bench.take()).toEqual(["store 1,2", "write GoLive", "write 1 a,b"]);
  });

  it("does not write stored messages, which the listener reads from the store", () => {
    const bench = SenderBench.down();
    bench.send(1, "a", "b");
    bench.channel.onStored(2);
    bench.take();
    bench.connect("c1", 3);
    bench.send(4, "c");
    expect(bench.take()).toEqual(["write GoLive", "write 3 c"]);
  });

  it("stores after the ack timeout, together with all older messages", () => {
    const bench = SenderBench.live();
    bench.send(1, "a");
    bench.send(500, "b");
    bench.take();
    expect(bench.channel.deadline).toBe(2_001);
    bench.channel.tick(2_001);
    expect(bench.take()).toEqual(["store 1"]);
    bench.channel.onStored(2_002);
    expect(bench.take()).toEqual(["a stored", "announce"]);
    expect(bench.channel.deadline).toBe(2_500);
  });

  it("stores at once when the listener reports busy", () => {
    const bench = SenderBench.live();
    bench.send(1, "a", "b");
    bench.take();
    bench.ack("c1", 12, 0, { busy: true });
    expect(bench.take()).toEqual(["store 1,2"]);
  });

  it("drops at-most-once messages at once while down, and after a delay while connecting", () => {
    const bench = new SenderBench();
    bench.channel.onDialling();
    bench.send(0, "~x");
    expect(bench.channel.deadline).toBe(1_000);
    bench.channel.tick(1_000);
    expect(bench.take()).toEqual(["~x dropped"]);
    bench.channel.onDialFailed(1_001);
    bench.send(1_002, "~y");
    expect(bench.take()).toEqual(["~y dropped"]);
  });

  it("reports a send that is never confirmed, and still stores it without a gap", () => {
    const bench = SenderBench.down();
    bench.send(0, "a");
    bench.channel.onStoreFailed(29_990);
    bench.take();
    bench.channel.tick(30_000);
    expect(bench.take()).toEqual(["a timed-out"]);
    bench.channel.tick(30_040);
    bench.channel.onStored(30_041);
    expect(bench.take()).toEqual(["store 1", "announce"]);
  });

  it("announces again only when the listener has read the announced messages, or may have missed the notification", () => {
    const bench = SenderBench.down();
    for (const [now, ticket] of [
      [1, "a"],
      [2, "b"],
      [2_500, "c"],
    ] as const) {
      bench.send(now, ticket);
      bench.channel.onStored(now);
    }
    expect(bench.take().filter((line) => line === "announce")).toHaveLength(2);
  });
});

describe("a sender's channel at its limits", () => {
  it("refuses a message when the queue is full, and accepts one of any size when it is empty", () => {
    const bench = new SenderBench({ maxSendQueueMessages: 2, maxSendQueueBytes: 5 });
    bench.send(0, "a", "b");
    expect(bench.take()).toEqual(["refused b"]);
  });

  it("counts messages that will be offered first", () => {
    const { channel } = new SenderBench({ maxSendQueueMessages: 2, maxSendQueueBytes: 5 });
    const hasRoom = (bytes: number, length: number, before: number) =>
      channel.hasRoom(bytes, { length, bytes: before });
    expect([hasRoom(9, 0, 0), hasRoom(2, 1, 3), hasRoom(3, 1, 3), hasRoom(1, 2, 2)]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  it("ends all sends when another process owns the name", () => {
    const bench = SenderBench.down();
    bench.send(1, "a", "b");
    bench.channel.onFenced();
    expect(bench.take()).toEqual(["store 1,2", "a fenced", "b fenced"]);
    bench.channel.onStored(2);
    expect(bench.take()).toEqual([]);
  });

  it("stores nothing while the lease may have expired", () => {
    const bench = SenderBench.down();
    bench.channel.setMayStore(false, 0);
    bench.send(1, "a");
    expect(bench.take()).toEqual([]);
    bench.channel.setMayStore(true, 2);
    expect(bench.take()).toEqual(["store 1"]);
  });

  it("stores unconfirmed messages when it stops, even while live", () => {
    const bench = SenderBench.live();
    bench.send(1, "a");
    bench.take();
    bench.channel.stop(2);
    expect(bench.take()).toEqual(["store 1"]);
  });

  it("renumbers unconfirmed messages under a new epoch", () => {
    const bench = SenderBench.live();
    bench.send(1, "a", "b", "c");
    bench.ack("c1", 2, 1);
    bench.take();
    bench.channel.restartNumbering(9, 3);
    expect(bench.channel.epoch).toBe(9);
    expect(bench.take()).toEqual(["store 1,2"]);
    bench.channel.onStored(4);
    expect(bench.take()).toEqual(["b stored", "c stored", "announce"]);
  });
});

describe("a sender's channel that was used before", () => {
  it("continues after its last number, over the connection and through the store", () => {
    const bench = SenderBench.down({}, 7);
    bench.send(1, "a");
    expect(bench.take()).toEqual(["store 8"]);
    bench.channel.onStored(2);
    bench.connect("c1", 3, 0, { epoch: 7, number: 5 });
    bench.send(4, "b");
    expect(bench.take()).toEqual(["a stored", "announce", "write GoLive", "write 9 b"]);
    bench.ack("c1", 5, 9);
    expect(bench.take()).toEqual(["b delivered"]);
  });
});
