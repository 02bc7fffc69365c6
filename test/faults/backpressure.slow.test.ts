/**
 * A listener that cannot keep up with a sender that sends as fast as it may.
 */
import { expect, it, onTestFinished } from "vitest";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";

const megabyte = 1024 * 1024;
const payloadBytes = 4_096;
const maxSendQueueMessages = 1_000;
const maxSendQueueBytes = 2 * megabyte;
const creditBytes = megabyte;
const loadMs = 4_000;
/** Both heaps may grow by what the limits allow, twice (as sent and as received or written), and by this. */
const slackBytes = 24 * megabyte;

it("a listener that cannot keep up slows senders down, or their sends are refused; both keep within their limits, and everything confirmed arrives", {
  timeout: patienceMs,
}, async () => {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  await using mesh = await Mesh.start({
    url: database.url,
    listeners: ["x"],
    // Ten times what it can; the window is beyond the queue's limit, so that sends are refused.
    perSecond: 1_000,
    window: maxSendQueueMessages + 500,
    payloadBytes,
    peer: { sendTimeoutMs: 60_000, tuning: { maxSendQueueMessages, maxSendQueueBytes, creditBytes } },
    execArgv: ["--expose-gc"],
  });
  const x = mesh.member("x");
  const processes = mesh.members.map((member) => ({ name: member.name, process: mesh.current(member) }));
  await mesh.current(x).call("slowDown", 5);
  const before = await Promise.all(processes.map(({ process }) => process.call("memory")));
  const begun = microseconds();
  const peaks = before.map(() => ({ heapAndExternal: 0, rss: 0 }));
  const rejections = () => mesh.senders.map((sender) => mesh.current(sender).journal.refresh().rejected);
  await eventually(
    "the load has lasted, and both senders were refused something",
    async () => {
      for (const [index, { process }] of processes.entries()) {
        const { heapAndExternal, rss } = await process.call("memory");
        const peak = peaks[index]!;
        peak.heapAndExternal = Math.max(peak.heapAndExternal, heapAndExternal);
        peak.rss = Math.max(peak.rss, rss);
      }
      return microseconds() > begun + loadMs * 1_000 && rejections().every(({ length }) => length > 0);
    },
    loadMs + 30_000,
  );
  // From here on it keeps up.
  await mesh.current(x).call("slowDown", 0);
  const refusals = rejections();
  await mesh.settle(60_000);
  const found = auditMesh(mesh);
  const inMiB = (bytes: number): string => `${(bytes / megabyte).toFixed(0)} MiB`;
  const memory = processes.map(({ name }, index) => {
    const [first, peak] = [before[index]!, peaks[index]!];
    return `${name}: heap ${inMiB(first.heapAndExternal)}, at most ${inMiB(peak.heapAndExternal)}, RSS at most ${inMiB(peak.rss)}`;
  });
  console.log(`${memory.join("; ")}; ${refusals.map(({ length }) => length).join(" and ")} refused; ${found.summary}`);
  for (const [index, { name }] of processes.entries()) {
    const grown = peaks[index]!.heapAndExternal - before[index]!.heapAndExternal;
    const allowed = name === "x" ? mesh.senders.length * 2 * creditBytes : 2 * maxSendQueueBytes;
    expect(grown, name).toBeLessThan(allowed + slackBytes);
  }
  for (const rejected of refusals) {
    expect(new Set(rejected.map(({ failure }) => `${failure.code} ${failure.outcome}`))).toEqual(
      new Set(["busy undefined"]),
    );
  }
  expect(problems(found.findings)).toEqual([]);
  expect(found.unknown).toBe(0);
});
