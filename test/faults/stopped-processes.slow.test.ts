/**
 * Processes that stand still (SIGSTOP) for longer than the pings allow, as on a machine that swaps or sleeps, side by side,
 * because most of it is waiting; and one whose name another process has taken meanwhile.
 */
import { describe, expect, it } from "vitest";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { FaultyWire } from "./support/faulty-wire.js";
import { patienceMs } from "./support/kills.js";
import { problems } from "./support/ledger.js";
import { Mesh, recoveryLimitMs } from "./support/mesh.js";
import { auditMesh } from "./support/mesh-audit.js";
import { microseconds } from "./support/mesh-protocol.js";
import { ownPostgres } from "./support/own-postgres.js";
import { shortPings as constants, detectionLimitMs, protocolSilenceMs } from "./support/silence.js";

const timeout = patienceMs;
/**
 * A stop may come to last longer than the sends of a stopped sender would wait. And a busy machine can keep an acknowledgement
 * waiting for longer than the default, after which its message is stored.
 */
const peer = { sendTimeoutMs: 120_000, tuning: { ackTimeoutMs: 4_000 } };
const perSecond = 50;

describe.concurrent("a process that stands still longer than the pings allow", () => {
  it("is noticed when it is a listener; what is for it is stored, and delivered afterwards", { timeout }, async () => {
    await using database = await testDatabase();
    await using mesh = await Mesh.start({ url: database.url, peer, perSecond, constants });
    const [x, y] = [mesh.member("x"), mesh.member("y")];
    mesh.current(x).kill("SIGSTOP");
    const begun = microseconds();
    const noticed = await Promise.all(
      mesh.senders.map(async (sender) => {
        const seen = () => mesh.statuses(sender, "peer_disconnected", begun)[0];
        await eventually(`"${sender.name}" notices it`, () => seen() !== undefined);
        expect(seen()?.status.peer).toBe("x");
        return (seen()!.at - begun) / 1_000;
      }),
    );
    // Messages for the other listener go on being delivered (a listener on a busy machine may ask for some to be stored),
    // and messages for this one are stored.
    for (const sender of mesh.senders) {
      const delivered = mesh.confirmed(sender, y).filter(({ at, outcome }) => at > begun && outcome === "delivered");
      expect(delivered.length).toBeGreaterThan(3 * perSecond);
    }
    for (const [index, sender] of mesh.senders.entries()) {
      // Also before it was noticed: its kernel still takes bytes, and acknowledges nothing.
      const stored = mesh.confirmed(sender, x).filter(({ at, outcome }) => at > begun && outcome === "stored");
      expect(stored.filter(({ at }) => (at - begun) / 1_000 < noticed[index]!).length).toBeGreaterThan(perSecond / 2);
    }
    mesh.current(x).kill("SIGCONT");
    const back = await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    console.log(
      `listener stopped: noticed after ${seconds(noticed)}, back after ${back.toFixed(0)} ms; ${found.summary}`,
    );
    expect(protocolSilenceMs).toBeLessThan(detectionLimitMs);
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
  });

  it("is noticed when it is a sender; what it had sent arrives when it is back", { timeout }, async () => {
    await using database = await testDatabase();
    await using x = await FaultyWire.make();
    await using y = await FaultyWire.make();
    await using mesh = await Mesh.start({
      ...{ url: database.url, peer, perSecond, constants },
      senders: ["a"],
      wires: { x, y },
    });
    const sender = mesh.current(mesh.member("a"));
    await sender.call("hurry", 100);
    sender.kill("SIGSTOP");
    const begun = microseconds();
    const noticed = await Promise.all(
      [x, y].map(async (wire) => {
        await eventually("the listener ends the connection", () => wire.endedByListener.length > 0);
        return ((wire.endedByListener[0] as number) - begun) / 1_000;
      }),
    );
    sender.kill("SIGCONT");
    const back = await mesh.recovered(microseconds());
    await mesh.settle();
    const found = auditMesh(mesh);
    console.log(
      `sender stopped: noticed after ${seconds(noticed)}, back after ${back.toFixed(0)} ms; ${found.summary}`,
    );
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
  });

  it("is Postgres: nothing is confirmed meanwhile, and everything goes on afterwards", { timeout }, async () => {
    await using postgres = await ownPostgres();
    await using mesh = await Mesh.start({ url: postgres.url, peer, perSecond, constants });
    postgres.freeze();
    const begun = microseconds();
    // From the expiry of the leases on nothing is handled; long before it nothing can be confirmed.
    const quietAfter = begun + 12_000_000;
    await eventually("the silence has lasted", () => microseconds() > quietAfter + 2_000_000, 60_000);
    const lastBegun = Math.max(...mesh.listeners.map((listener) => mesh.begun(listener).at(-1)?.at ?? 0));
    const confirmed = mesh.channels.flatMap(({ sender, listener }) =>
      mesh.confirmed(sender, listener).filter(({ sentAt }) => sentAt > begun),
    );
    postgres.resume();
    const resumed = microseconds();
    const back = await mesh.recovered(resumed);
    await mesh.settle();
    const found = auditMesh(mesh);
    console.log(
      `Postgres stopped for ${((resumed - begun) / 1e6).toFixed(1)} s: the last handler began after ` +
        `${((lastBegun - begun) / 1e6).toFixed(1)} s, back after ${back.toFixed(0)} ms; ${found.summary}`,
    );
    expect(lastBegun).toBeLessThan(quietAfter);
    expect(confirmed).toEqual([]);
    expect(problems(found.findings)).toEqual([]);
    expect(found.unknown).toBe(0);
  });
});

// `advisory-locks.slow.test.ts` does it with a listener.
it.concurrent("a sender that stands still while another process takes its name ends with name_lost, and what it writes late is refused", {
  timeout,
}, async () => {
  await using database = await testDatabase();
  const { url } = database;
  await using mesh = await Mesh.start({ url, senders: ["a"], listeners: ["x"], perSecond: 200 });
  const [a, x] = [mesh.member("a"), mesh.member("x")];
  const old = mesh.current(a);
  // With the listener gone everything is stored; stopped in the middle of much.
  await mesh.current(x).crash();
  await old.call("hurry", 1_000);
  await eventually("it stores", () => mesh.confirmed(a, x).filter(({ outcome }) => outcome === "stored").length > 50);
  await old.call("hurry", 1_000);
  old.kill("SIGSTOP");
  // As an operator can: by ending the session that has it.
  const ended = await rowsOf(url, "SELECT pg_terminate_backend(pid) FROM hawser_data.owners WHERE what = 'peer:a'");
  expect(ended).toHaveLength(1);
  await mesh.launch(a);
  const epoch = a.epochs.get(1) as number;
  expect(a.epochs.get(2)).toBeGreaterThan(epoch);
  const rowsOfOld = `SELECT max(number)::float8 AS last, count(*)::float8 AS count FROM hawser_peer_data.stored_messages WHERE epoch = ${epoch}`;
  const before = await rowsOf(url, rowsOfOld);
  const resumed = microseconds();
  old.kill("SIGCONT");
  const lost = () => old.journal.refresh().statuses.find(({ status }) => status.kind === "name_lost");
  await eventually("it ends with name_lost", () => lost() !== undefined, recoveryLimitMs);
  await eventually("its sends are rejected", () =>
    old.journal.refresh().rejected.some(({ failure }) => failure.code === "not_running"),
  );
  expect(await rowsOf(url, rowsOfOld)).toEqual(before);
  const late = old.journal.confirmed.filter(({ at }) => at > resumed);
  const cut = old.journal.rejected.filter(({ failure }) => failure.code === "name_lost");
  expect(cut.filter(({ failure }) => failure.outcome !== "unknown")).toEqual([]);
  await mesh.launch(x);
  const back = await mesh.recovered(microseconds());
  await mesh.settle();
  const found = auditMesh(mesh, new Map([[old.pid, resumed]]));
  console.log(
    `stalled sender: name_lost ${((lost()!.at - resumed) / 1_000).toFixed(0)} ms after it woke, ${cut.length} sends ` +
      `rejected as unknown, ${late.length} confirmed late; back after ${back.toFixed(0)} ms; ${found.summary}`,
  );
  expect(problems(found.findings)).toEqual([]);
  expect(cut.length).toBeGreaterThan(0);
});

function seconds(all: readonly number[]): string {
  return all.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(" and ");
}
