import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SecretCache } from "../../src/peer/context.js";
import type { Peer } from "../../src/peer/index.js";
import { type MeshSecrets, meshSecrets, openStore, silentLogger, withCommandDatabase } from "../../src/store/index.js";
import { dial } from "../../src/transport/index.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
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
    world = await peerWorld();
  });
  afterAll(() => world[Symbol.asyncDispose]());

  it("is rotated under load, with every connection cut in each phase, and nothing is lost", async () => {
    const mesh = await Promise.all(["a", "b", "c"].map((topic) => cuttablePeer(world, `${topic}-1`)));
    for (const { peer } of mesh) await peer.record();
    const streams = mesh.flatMap(({ peer: from }) =>
      mesh.flatMap(({ peer: to }) => (to === from ? [] : [new NumberedStream(from, to)])),
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

    const unconfirmed = (await Promise.all(streams.map((stream) => stream.end()))).flat();
    expect(unconfirmed).toEqual([]);
    for (const { from, to, sent } of streams) {
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
      "SELECT secret FROM hawser.mesh_secret ORDER BY id DESC LIMIT 1",
    );
    await step((secrets) => secrets.rotateSecret());
    await step((secrets) => secrets.retireSecret());
    const knownToListener = (await world.query<{ secret: Buffer }>("SELECT secret FROM hawser.mesh_secret"))[0]?.secret;
    expect(knownToListener?.equals(old?.secret as Buffer)).toBe(false);
    await sender.run();
    expect(await sender.sendTo("lr", "proved with the new one")).toMatchObject({ outcome: "delivered" });

    // One that only knows the old secret, as after a theft.
    const stolen = dial({
      address: listener.publishedAddress,
      identity: { senderName: "sr-1", sourceTopic: "sr", listenerName: "lr-1", connectionKey: 1, epoch: 1 },
      secret: old?.secret as Buffer,
      handlers: { onAck() {}, onGoodbye() {}, onDrain() {}, onClosed() {} },
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
    const [old] = await world.query<{ secret: Buffer }>("SELECT secret FROM hawser.mesh_secret");
    // A listener that hears of nothing, for as long as it lives.
    const listenerName = "deaf-1";
    await using listener = await TestListener.start({ listenerName, secrets: () => [old?.secret as Buffer] });
    await world.query("INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ('deaf', $1, $2)", [
      listener.address,
      listenerName,
    ]);
    await step((secrets) => secrets.rotateSecret());
    const sender = await world.started("sd-1", { ackTimeoutMs: 100 });
    await sender.sendTo("deaf", "hello");
    expect((await listener.accepted.next()).hello.senderName).toBe("sd-1");
    expect(listener.refusals.all).toMatchObject([{ code: "unauthenticated" }]);
    await sender.stop();
    await step((secrets) => secrets.retireSecret());
  });

  it("reaches a peer whose session was away meanwhile", async () => {
    await using wire = await startProxy(world.url);
    const listener = await world.started("lw-1", { databaseUrl: wire.url });
    const sender = await world.started("sw-1");
    // The session is lost while the secret changes, so that its peer hears of no notification.
    const steps = async (): Promise<void> => {
      await step((secrets) => secrets.rotateSecret());
      await step((secrets) => secrets.retireSecret());
    };
    wire.freeze();
    await steps();
    wire.cut();
    expect((await sender.sendTo("lw", "first")).outcome).toMatch(/delivered|stored/);
    await listener.received.find(({ text }) => text === "first");
    await sender.saw("peer_connected");
    expect(await sender.sendTo("lw", "second")).toMatchObject({ outcome: "delivered" });
    await Promise.all([sender.stop(), listener.stop()]);
  });
});

/** Sends "1", "2", … to one listener, some at a time, and remembers what became of them. */
class NumberedStream {
  sent = 0;
  readonly outcomes = new Log<"delivered" | "stored">();
  private readonly failures: unknown[] = [];
  private readonly running: Promise<void>[];
  private ending = false;

  constructor(
    readonly from: TestPeer,
    readonly to: TestPeer,
  ) {
    this.running = Array.from({ length: 8 }, () => this.run());
  }

  /** Resolves when some more messages were delivered, from now on, by a live connection. */
  async goesOn(): Promise<void> {
    const until = this.outcomes.all.filter((outcome) => outcome === "delivered").length + 50;
    await this.outcomes.until(
      `${this.from.name} delivers to ${this.to.name} again`,
      (all) => all.filter((outcome) => outcome === "delivered").length >= until,
      withinMs,
    );
  }

  /** Sends no more. @returns what failed */
  async end(): Promise<unknown[]> {
    this.ending = true;
    await Promise.all(this.running);
    return this.failures;
  }

  private async run(): Promise<void> {
    const topic = this.to.name.split("-")[0] as string;
    while (!this.ending) {
      try {
        const receipt: Awaited<ReturnType<Peer["sendTo"]>> = await this.from.sendTo(topic, String(++this.sent));
        if (receipt.outcome === "delivered" || receipt.outcome === "stored") this.outcomes.push(receipt.outcome);
      } catch (error) {
        this.failures.push(error);
        return;
      }
    }
  }
}

/** Cuts every connection, and waits until each stream has a new one over which it delivers. */
async function allGoOn(mesh: readonly CuttablePeer[], streams: readonly NumberedStream[]): Promise<void> {
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
