/**
 * Network faults: a connection is reset in the middle of a frame, or accepts bytes and delivers none.
 */
import { describe, expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { FaultyWire } from "./support/faulty-wire.js";
import { patienceMs, spread } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";
import { shortPings } from "./support/silence.js";

const cuts = 9;

describe.concurrent("connections", () => {
  it(`are cut in the middle of a frame ${cuts} times: nothing confirmed is lost`, { timeout: patienceMs }, async () => {
    await using database = await testDatabase();
    await using wire = await FaultyWire.make();
    await using mesh = await Mesh.start({
      url: database.url,
      listeners: ["x"],
      wires: { x: wire },
      payloadBytes: 3_000,
    });
    const recoveries: number[] = [];
    for (let cut = 0; cut < cuts; cut++) {
      const before = mesh.senders.map((sender) => mesh.statuses(sender, "peer_disconnected").length);
      // Every third time in an acknowledgement.
      expect(await wire.cutInFrame(cut % 3 === 2 ? "backward" : "forward")).toBeGreaterThanOrEqual(4);
      const at = microseconds();
      await eventually("a sender has noticed", () =>
        mesh.senders.some((sender, index) => mesh.statuses(sender, "peer_disconnected").length > before[index]!),
      );
      recoveries.push(await mesh.recovered(at));
    }
    await mesh.settle();
    const found = auditMesh(mesh);
    console.log(`${cuts} cuts in a frame: ${found.summary}; back after: ${spread(recoveries)}`);
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
  });

  it("that swallow bytes in one or both directions are noticed and replaced", { timeout: patienceMs }, async () => {
    await using database = await testDatabase();
    await using x = await FaultyWire.make();
    await using y = await FaultyWire.make();
    await using z = await FaultyWire.make();
    const wires = { x, y, z };
    await using mesh = await Mesh.start({
      url: database.url,
      listeners: Object.keys(wires),
      wires,
      perSecond: 50,
      constants: shortPings,
    });
    const begun = microseconds();
    x.swallow("forward");
    y.swallow("backward");
    z.swallow("forward", "backward");
    const noticed = await Promise.all(
      mesh.channels.map(async ({ sender, listener }) => {
        const seen = () =>
          mesh.statuses(sender, "peer_disconnected", begun).find((each) => each.status.peer === listener.name);
        await eventually(`${sender.name} notices that ${listener.name} is silent`, () => seen() !== undefined);
        return { channel: `${sender.name} to ${listener.name}`, ms: (seen()!.at - begun) / 1_000 };
      }),
    );
    // Meanwhile sends go on, by the store.
    const confirmed = mesh.channels.map(({ sender, listener }) => mesh.confirmed(sender, listener).length);
    await eventually("every channel stores meanwhile", () =>
      mesh.channels.every(
        ({ sender, listener }, index) => mesh.confirmed(sender, listener).length >= confirmed[index]! + 20,
      ),
    );
    for (const wire of Object.values(wires)) wire.heal();
    const back = await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    const times = noticed.map(({ channel, ms }) => `${channel} ${(ms / 1_000).toFixed(1)} s`).join(", ");
    console.log(`half-open: noticed after: ${times}; back after ${back.toFixed(0)} ms; ${found.summary}`);
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
  });
});
