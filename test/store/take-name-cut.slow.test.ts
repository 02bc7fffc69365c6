/**
 * Connections that are cut right at the moment at which a name is taken: whether the server then has it or not, whoever
 * asked does not know, and goes on all the same.
 */
import { expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import type { Lease } from "../../src/jobs-and-peers/store/index.js";
import { atDepth } from "../support/depth.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { type CutStage, startProxy } from "./support/proxy.js";
import { world } from "./support/world.js";

const stages: readonly CutStage[] = ["before", "sent", "answered"];
/** Each stage at the first and the second of two names, at least. */
const rounds = Math.max(atDepth(12), 2 * stages.length);
const promotions = Math.max(atDepth(6), 2 * stages.length);
const timeout = 60_000 + rounds * 20_000;

it("a start gets its name although the answer is lost, and under no epoch twice", { timeout }, async () => {
  await using w = await world();
  await using proxied = await startProxy(w.url);
  await using store = await openStore({ databaseUrl: proxied.url });
  let epoch = 0;
  for (let round = 0; round < rounds; round++) {
    const cut = proxied.cutAt("hawser.own_name", stages[round % stages.length]!);
    const taking = store.takeName("one", { waitMs: 20_000 });
    await cut;
    const lease = await taking;
    expect(lease).toMatchObject({ state: "held", isWritable: true });
    expect(lease.epoch).toBeGreaterThan(epoch);
    expect(await w.store.peerEpoch("one")).toBe(lease.epoch);
    epoch = lease.epoch;
    await lease.release({ clean: true });
  }
});

it("a holder keeps its name over a restart, whose sessions are cut as they look for it", { timeout }, async () => {
  await using w = await world();
  await using proxied = await startProxy(w.url);
  await using store = await openStore({ databaseUrl: proxied.url });
  const lease = await store.takeName("one", { waitMs: 0 });
  const { epoch } = lease;
  for (let round = 0; round < rounds; round++) {
    const cut = proxied.cutAt("hawser.keep_name", stages[round % stages.length]!);
    proxied.cut();
    await cut;
    await eventually("the lease is held again", () => lease.state === "held" && store.isUp);
  }
  expect(lease.epoch).toBe(epoch);
});

it("holders keep their names over promotions, and are known by them", { timeout }, async () => {
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await using proxied = await startProxy(servers.primary.url);
  await using store = await openStore({ databaseUrl: proxied.url });
  const leases = [await store.takeName("one", { waitMs: 0 }), await store.takeName("two", { waitMs: 0 })];
  const lost: string[] = [];
  for (const lease of leases) lease.onChange((state) => state === "lost" && lost.push(lease.name));
  for (let round = 0; round < promotions; round++) {
    const before = leases.map(({ epoch }) => epoch);
    // Of the two that are taken anew over one session, the first or the second.
    let isCut = false;
    void proxied.cutAt("hawser.own_name", stages[round % stages.length]!, 1 + (round % 2)).then(() => {
      isCut = true;
    });
    await servers.switchOver();
    proxied.leadTo(servers.primary.url);
    await eventually(
      `both names are held again in round ${round}`,
      () => lost.length > 0 || (isCut && store.isUp && leases.every((lease, at) => isRenewed(lease, before[at]!))),
    );
    expect(lost).toEqual([]);
    for (const { name, epoch } of leases) {
      expect(await epochsOf(servers.primary.url, name)).toEqual([{ epoch: `${epoch}`, locks: "1" }]);
    }
    await servers.rejoin();
  }
});

function isRenewed(lease: Lease, epoch: number): boolean {
  return lease.state === "held" && lease.isWritable && lease.epoch > epoch;
}

/** The epoch of a name, and how many sessions that are alive have it. */
function epochsOf(databaseUrl: string, name: string): Promise<Record<string, unknown>[]> {
  return rowsOf(
    databaseUrl,
    `SELECT epoch::text, (
       SELECT count(*)::text FROM hawser_data.owners AS o WHERE o.what = 'peer:${name}' AND hawser.is_alive(o.pid, o.life)
     ) AS locks
     FROM hawser_peer_data.peers WHERE name = '${name}'`,
  );
}
