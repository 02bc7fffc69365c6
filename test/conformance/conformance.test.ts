/**
 * A peer that shares no code with this project talks to its peers: by the pages of docs/, the vectors and the generated
 * descriptors, with no more rights than `hawser_peer`. Its wire is in Python, or in Node where there is no Python.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";
import { eventually } from "../support/eventually.js";
import { projectDirectory } from "../support/program.js";
import { ForeignPeer } from "./peer/foreign-peer.js";
import { NodeWire } from "./peer/node-wire.js";
import { hasPython, PythonWire, pythonArguments } from "./peer/python-wire.js";
import type { Wire } from "./peer/wire.js";

const isPython = hasPython();

const world = sharedPeerWorld();

/** A way to start foreign peers in the database. */
async function strangers() {
  const role = await login(world.url, "IN ROLE hawser_peer");
  const wire: Wire = isPython ? new PythonWire() : new NodeWire();
  return {
    foreign: (name: string) => ForeignPeer.start({ name, topic: name.split("-")[0]!, databaseUrl: role.url, wire }),
    async [Symbol.asyncDispose]() {
      await role[Symbol.asyncDispose]();
      await wire[Symbol.asyncDispose]();
    },
  };
}

describe("a peer written from the pages alone", () => {
  it("delivers messages to a peer, live", async () => {
    await using opened = await strangers();
    const { foreign } = opened;
    // Without it, looking up the topic of the first message makes the peer busy on a slow machine: the others are stored.
    const orders = await world.started("orders-1", { tuning: { busyAfterMs: 20_000 } });
    await using guest = await foreign("guest-1");
    const { sender, topicId, refused } = await guest.channelTo("orders");
    expect(refused).toBeUndefined();
    await sender.isLive();
    const outcomes = await Promise.all(["one", "two", "three"].map((text) => sender.send(topicId, text)));
    expect(outcomes).toEqual(["delivered", "delivered", "delivered"]);
    expect(
      await sender.send(topicId, "four", [
        ["trace", "7f"],
        ["trace", ""],
      ]),
    ).toBe("delivered");
    expect(orders.texts).toEqual(["one", "two", "three", "four"]);
    expect(orders.received.all.at(-1)).toMatchObject({
      topic: "orders",
      senderTopic: "guest",
      sender: "guest-1",
      headers: [
        ["trace", "7f"],
        ["trace", ""],
      ],
      delivery: "at-least-once",
      attempt: 1,
    });
    sender.sendOnce(topicId, "five", "six");
    await eventually("messages without numbers arrive", () => orders.received.all.length === 6);
    expect(orders.received.all.at(-1)).toMatchObject({ text: "six", delivery: "at-most-once" });
    expect(await world.storedMessages()).toBe(0);
    await sender.close();
    expect(sender.goodbye).toEqual({ epoch: String(guest.store.epoch), number: "4" });
  });

  it("receives what a peer sends, live, with headers and compressed", async () => {
    await using opened = await strangers();
    const { foreign } = opened;
    await using guest = await foreign("guest-1");
    // On a slow machine, too, it waits for the acknowledgement rather than store.
    const orders = await world.started("orders-1", { tuning: { compressThresholdBytes: 100, ackTimeoutMs: 20_000 } });
    await orders.send("guest", "one");
    await eventually("the channel is live", async () => (await orders.send("guest", "more")).outcome === "delivered");
    const receipt = await orders.send("guest", "x".repeat(5_000), { headers: { trace: "1" } });
    expect(receipt).toMatchObject({ outcome: "delivered", peer: "guest-1" });
    expect(guest.handled.at(-1)).toMatchObject({
      sender: "orders-1",
      text: "x".repeat(5_000),
      headers: [["trace", "1"]],
    });
    expect((await orders.send("guest", "tick", { delivery: "at-most-once" })).outcome).toBe("sent");
    await eventually("the message without a number arrives", () => guest.texts.at(-1) === "tick");
    const numbers = guest.handled.flatMap(({ position }) => (position === undefined ? [] : [position.number]));
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));
    expect(guest.listener.reported).toEqual([]);
    expect((await orders.pending()).count).toBe(0);
  });

  it("takes what was stored for it while it was away, in order, and then goes live", async () => {
    await using opened = await strangers();
    const { foreign } = opened;
    const orders = await world.started("orders-1", { tuning: { ackTimeoutMs: 500 } });
    await (await foreign("guest-1")).stop();
    const first = await foreign("guest-1");
    await orders.send("guest", "0");
    // Stored, it waits for whoever is there next.
    await eventually("the first has it", () => first.handled.length === 1);
    await first.stop();
    const texts = Array.from({ length: 250 }, (_, index) => `${index + 1}`);
    const receipts = await Promise.all(texts.map((text) => orders.send("guest", text)));
    expect(new Set(receipts.map(({ outcome }) => outcome))).toEqual(new Set(["stored"]));
    await using again = await foreign("guest-1");
    await eventually("everything stored is taken", () => again.handled.length >= 250);
    await eventually("the channel is live", async () => (await orders.send("guest", "z")).outcome === "delivered");
    expect(again.texts.slice(0, 250)).toEqual(texts);
    // Rows at or below the cursor may be left: copies that were being stored when their message was delivered.
    expect((await orders.pending()).count).toBe(0);
  });

  it("stores for a peer that is away, which takes it when it starts", async () => {
    await using opened = await strangers();
    const { foreign } = opened;
    const orders = await world.started("orders-1");
    await using guest = await foreign("guest-1");
    const met = await guest.channelTo("orders");
    expect(await met.sender.send(met.topicId, "one")).toBe("delivered");
    await orders.stop();
    await eventually("the sender has noticed", async () => met.sender.goodbye !== undefined);
    expect(await met.sender.send(met.topicId, "two", [["a", "b"]])).toBe("stored");
    expect(await met.sender.send(met.topicId, "three")).toBe("stored");
    await orders.record();
    await eventually("what was stored is handled", () => orders.received.all.length === 3);
    expect(orders.texts).toEqual(["one", "two", "three"]);
    expect(orders.received.all[1]?.headers).toEqual([["a", "b"]]);
  });

  it("goes on in a new epoch after a restart, with nothing handled twice", async () => {
    await using opened = await strangers();
    const { foreign } = opened;
    const orders = await world.started("orders-1");
    for (const text of ["one", "two", "three"]) {
      await using guest = await foreign("guest-1");
      const { sender, topicId } = await guest.channelTo("orders");
      expect(await sender.send(topicId, text)).toBe("delivered");
    }
    expect(orders.texts).toEqual(["one", "two", "three"]);
    const [cursor] = await world.query<{ number: number }>("SELECT number FROM hawser_peer_data.cursors");
    expect(cursor).toEqual({ number: 1 });
  });

  it("has nothing of this project's own code", () => {
    const directory = `${projectDirectory}test/conformance/peer`;
    const imported = readdirSync(directory).flatMap((file) =>
      [...readFileSync(`${directory}/${file}`, "utf8").matchAll(/from "(.+)"/g)].map(([, path]) => path!),
    );
    const foreignPaths = imported.filter((path) => !path.startsWith("node:") && !path.startsWith("./"));
    expect([...new Set(foreignPaths)].sort()).toEqual([
      "../../../generated/ts/es/hawser/peer/v1/frames_pb.js",
      "@bufbuild/protobuf",
      "pg",
    ]);
  });

  it.runIf(isPython)("reads and writes all vectors in Python", () => {
    const program = pythonArguments("check_vectors.py", `${projectDirectory}test/vectors`);
    const { status, stdout, stderr } = spawnSync("python3", program, { encoding: "utf8" });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^\d{3} vectors hold\n$/);
  });
});
