import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { SecretCache } from "../../src/jobs-and-peers/peer/core/context.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { dial } from "../../src/jobs-and-peers/transport/index.js";
import { meshSecrets, withCommandDatabase } from "../../src/operating/operate/index.js";
import type { MeshSecrets } from "../../src/operating/operate/mesh-secrets.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { slowIt } from "../support/slow-it.js";
import { TestListener } from "../transport/pair.js";
import { type CuttablePeer, cuttablePeer } from "./support/cuttable.js";
import { Log } from "./support/log.js";
import { type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

const withinMs = 30_000;

describe("the mesh secret", () => {
  let world: PeerWorld;
  const step = <T>(work: (secrets: MeshSecrets) => Promise<T>): Promise<T> =>
    withCommandDatabase(world.url, (database) => work(meshSecrets(database)));
  beforeAll(async () => {
    world = await peerWorld({ nats: false, keepsConnections: true });
  });
  afterAll(() => world[Symbol.asyncDispose]());

  slowIt("is rotated under load, with every connection cut in each phase, and nothing is lost", async () => {
    const mesh = await Promise.all(["a", "b", "c"].map((topic) => cuttablePeer(world, `${topic}-1`)));
    for (const { peer } of mesh) await peer.record();
    const streams = mesh.flatMap(({ peer: from }) =>
      mesh.flatMap(({ peer: to }) => (to === from ? [] : [numberedStream(from, to)])),
    );
    const first = await step((secrets) => secrets.meshSecrets());
    expect(first).toHaveLength(1);
    await allGoOn(mesh, streams);

    const added = await step((secrets) => secrets.rotateSecret());
    await allGoOn(mesh, streams);
    // Cut again while the change is a moment old for some: whoever has not heard of it is met halfway.
    const retired = await step((secrets) => secrets.retireSecret());
    expect(retired).toEqual(first);
    await allGoOn(mesh, streams);
    expect(await step((secrets) => secrets.meshSecrets())).toEqual([added]);

    const counts = await Promise.all(streams.map((stream) => stream.end()));
    for (const [index, { from, to }] of streams.entries()) {
      const sent = counts[index] as number;
      await to.received.find(({ sender, text }) => sender === from.name && text === String(sent));
      const texts = to.received.all.filter(({ sender }) => sender === from.name).map(({ text }) => text);
      expect(texts).toEqual(Array.from({ length: sent }, (_, index) => String(index + 1)));
    }
    for (const each of mesh) await each[Symbol.asyncDispose]();
  });

  it("that was retired lets nobody in any more", async () => {
    const listener = await world.started("lr-1");
    const sender = world.peer("sr-1");
    const [old] = await world.query<{ secret: Buffer }>(
      "SELECT secret FROM hawser_peer_data.mesh_secret ORDER BY id DESC LIMIT 1",
    );
    await step((secrets) => secrets.rotateSecret());
    await step((secrets) => secrets.retireSecret());
    const knownToListener = (
      await world.query<{ secret: Buffer }>("SELECT secret FROM hawser_peer_data.mesh_secret")
    )[0]?.secret;
    expect(knownToListener?.equals(old?.secret as Buffer)).toBe(false);
    await sender.start();
    expect(await sender.send("lr", "proved with the new one")).toMatchObject({ outcome: "delivered" });

    // One that only knows the old secret, as after a theft.
    const stolen = dial({
      address: listener.address,
      identity: { senderName: "sr-1", sourceTopic: "sr", listenerName: "lr-1", channelId: 1, epoch: 1 },
      secret: old?.secret as Buffer,
      handlers: { onAck() {}, onAnswer() {}, onGoodbye() {}, onDrain() {}, onClosed() {} },
    });
    await expect(stolen).rejects.toMatchObject({ code: "unauthenticated" });
    await Promise.all([sender.stop(), listener.stop()]);
  });

  it("is read again with the next session by who missed the change", async () => {
    await using wire = await startProxy(world.url);
    await using store = await openStore({ databaseUrl: wire.url });
    const secrets = new SecretCache(store);
    await secrets.refresh();
    const stop = secrets.follow(silentLogger);
    expect(secrets.all).toHaveLength(1);
    wire.freeze();
    await step((steps) => steps.rotateSecret());
    expect(secrets.all).toHaveLength(1);
    wire.cut();
    await eventually("both secrets are known", () => secrets.all.length === 2);
    const [, older] = secrets.all;
    await step((steps) => steps.retireSecret());
    await eventually("one secret is known", () => secrets.all.length === 1);
    expect(secrets.all).not.toContainEqual(older);
    stop();
  });

  it("that a listener does not know yet is followed by the one before", async () => {
    const [old] = await world.query<{ secret: Buffer }>("SELECT secret FROM hawser_peer_data.mesh_secret");
    // A listener that hears of nothing, for as long as it lives.
    const listenerName = "deaf-1";
    await using listener = await TestListener.start({ listenerName, secrets: () => [old?.secret as Buffer] });
    await world.list("deaf", listenerName, { addr: listener.address });
    await step((secrets) => secrets.rotateSecret());
    const sender = await world.started("sd-1", { tuning: { ackTimeoutMs: 100 } });
    await sender.send("deaf", "hello");
    expect((await listener.accepted.next()).connection.hello.senderName).toBe("sd-1");
    expect(listener.refusals.all).toMatchObject([{ code: "unauthenticated" }]);
    await sender.stop();
    await step((secrets) => secrets.retireSecret());
  });
});

/** Sends "1", "2", … to one listener, eight at a time. */
function numberedStream(from: TestPeer, to: TestPeer) {
  const outcomes = new Log<string>();
  let sent = 0;
  let ending = false;
  const one = async (): Promise<void> => {
    const topic = to.name.split("-")[0] as string;
    while (!ending) outcomes.push((await from.send(topic, String(++sent))).outcome);
  };
  const running = Promise.all(Array.from({ length: 8 }, one));
  running.catch(() => undefined);
  const delivered = (): number => outcomes.all.filter((outcome) => outcome === "delivered").length;
  return {
    from,
    to,
    /** Resolves when some more messages were delivered, from now on, by a live connection. */
    async goesOn(): Promise<void> {
      const until = delivered() + 50;
      await outcomes.until(`${from.name} delivers to ${to.name} again`, () => delivered() >= until, withinMs);
    },
    /** Sends no more. Rejects if a send was not confirmed. @returns how many were sent */
    async end(): Promise<number> {
      ending = true;
      await running;
      return sent;
    },
  };
}

/** Cuts every connection, and waits until each stream has a new one over which it delivers. */
async function allGoOn(mesh: readonly CuttablePeer[], streams: readonly { goesOn(): Promise<void> }[]): Promise<void> {
  const seen = mesh.map(({ peer }) => peer.statuses.all.length);
  for (const { cut } of mesh) cut();
  await Promise.all(
    mesh.map(async ({ peer }, index) => {
      for (const other of mesh) {
        if (other.peer === peer) continue;
        await peer.saw("peer_connected", ({ peer: name }) => name === other.peer.name, seen[index]);
      }
    }),
  );
  await Promise.all(streams.map((stream) => stream.goesOn()));
}
