/**
 * Planned switchovers, as Patroni makes them: the primary ends in order, the standby is promoted, a proxy leads to it, and
 * the old primary comes back as its standby. Peers go on under their names, soon, and nothing that was confirmed is lost.
 * `another-server.slow.test.ts` has two peers in one process.
 */
import { expect, it } from "vitest";
import { migrate } from "../../src/jobs-and-peers/migrations/index.js";
import { startProxy } from "../store/support/proxy.js";
import { atDepth } from "../support/depth.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";

/** Durations without a primary, in turn: from none to longer than a peer continues without renewing its lease. */
const downMs = [0, 4_000, 12_000];
/** Rounds: each duration once with a cut answer, and once without. */
const rounds = atDepth(2 * downMs.length);

it(`peers are live again after each of ${rounds} switchovers, and nothing is lost`, {
  timeout: patienceMs + rounds * 40_000,
}, async () => {
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await using proxy = await startProxy(servers.primary.url);
  await using mesh = await Mesh.start({ url: proxy.url, senders: ["a"], listeners: ["x"], perSecond: 50 });
  const tookMs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // Some of them as unlucky as they can be.
    if (round % 2 === 1) void proxy.cutAt("hawser.own_name", "answered");
    await servers.switchOver(downMs[round % downMs.length]);
    proxy.leadTo(servers.primary.url);
    tookMs.push(await mesh.recovered(microseconds()));
    await servers.rejoin();
  }
  await mesh.settle();
  const found = auditMesh(mesh);
  console.log(
    `${rounds} switchovers, live after ${tookMs.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(", ")}; ${found.summary}`,
  );
  // A name that is taken anew has another epoch, which the journals do not know of.
  const { begunAlthoughDone: _, ...findings } = found.findings;
  expect(problems(findings)).toEqual([]);
});
