/**
 * Real processes: listeners that are killed, stopped and forced, one after another, while their messages are handed over.
 */
import { expect, it, onTestFinished } from "vitest";
import { HawserError } from "../../src/foundation/errors/index.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { ledgerTable, readLedger } from "./support/ledger.js";
import { type PeerProcess, runningPeer } from "./support/peer-process.js";

async function ownDatabase(): Promise<{ url: string; store: Store }> {
  const database = await testDatabase();
  const store = await openStore({ databaseUrl: database.url });
  onTestFinished(async () => {
    await store.close();
    await database.drop();
  });
  return { url: database.url, store };
}

/** Sends numbered messages, and resolves when all were confirmed. */
async function send(peer: PeerProcess, topic: string, from: number, to: number): Promise<void> {
  const sent: Promise<unknown>[] = [];
  for (let n = from; n <= to; n++) sent.push(peer.call("sendTo", topic, `${n}`));
  await Promise.all(sent);
}

/** Nobody met a hole. */
function expectNoGaps(...peers: PeerProcess[]): void {
  expect(peers.flatMap(({ statuses }) => statuses.all.filter(({ kind }) => kind === "gap"))).toEqual([]);
}

it("a hand-over may come in the middle of a drain: everything is handled, in order, and nothing again that was committed", async () => {
  const { url, store } = await ownDatabase();
  await onServer(url, ledgerTable);
  const a = await runningPeer(url, "a-1");
  const first = await runningPeer(url, "b-1");
  await send(a, "b", 1, 1);
  await first.finish();
  const last = 1_500;
  for (let n = 2; n <= last; n += 500) await send(a, "b", n, Math.min(n + 499, last));
  await a.finish();

  const listeners: PeerProcess[] = [];
  let from = "b-1";
  // From one to the next, each in the middle of its work: a live one by force, a dead one, one that stands still.
  for (const [index, end] of (["force", "kill", "stop", "none"] as const).entries()) {
    const listener = await runningPeer(url, from, { handler: "ledger", ledgerUrl: url });
    listeners.push(listener);
    if (end === "none") break;
    await listener.messages.length(100);
    if (end === "kill") await listener.crash();
    if (end === "stop") listener.kill("SIGSTOP");
    const to = `b-${index + 2}`;
    // A killed one has its name for a moment longer, if its session was in the middle of a statement.
    let handedOver = 0;
    await eventually("the name is free", async () => {
      try {
        const released = await store.reassign({ from, to, force: end !== "kill" });
        const enqueued = await store.reassignEnqueued(from, to);
        handedOver = released.reduce((sum, { stored }) => sum + stored, enqueued);
        return true;
      } catch (error) {
        if (error instanceof HawserError && error.code === "name_in_use") return false;
        throw error;
      }
    });
    expect(handedOver).toBeGreaterThan(0);
    from = to;
  }
  const waiting = () =>
    rowsOf(url, "SELECT 1 FROM hawser_peer_data.stored_messages UNION ALL SELECT 1 FROM hawser_data.queue");
  await eventually("all are handled", async () => (await waiting()).length === 0);
  // The one that stood still wakes, and can do no harm.
  listeners[2]?.kill("SIGCONT");
  await listeners[2]?.statuses.find(({ kind }) => kind === "name_lost");

  const ledger = (await readLedger(url)).map((row) => ({ ...row, number: Number(row.text) }));
  const firsts = [...new Set(ledger.map(({ number }) => number))];
  expect(firsts).toEqual(Array.from({ length: last - 1 }, (_, n) => n + 2));
  const begun = listeners.map(({ pid }) => ledger.filter((row) => row.pid === pid).map(({ number }) => number));
  for (const [index, own] of begun.entries()) {
    expect(own).toEqual([...own].sort((x, y) => x - y));
    expect(new Set(own).size).toBe(own.length);
    // What was committed is not begun again: only the last messages of a listener can be.
    const others = new Set(begun.slice(index + 1).flat());
    const again = own.filter((number) => others.has(number));
    expect(again).toEqual(again.length === 0 ? [] : own.slice(-again.length));
  }
  expectNoGaps(...listeners);
});
