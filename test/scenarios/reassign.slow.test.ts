/**
 * Real processes: listeners that are killed, stopped and forced, one after another, while their channels are handed over.
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
        handedOver = (await store.reassign({ from, to, force: end !== "kill" })).length;
        return true;
      } catch (error) {
        if (error instanceof HawserError && error.code === "name_in_use") return false;
        throw error;
      }
    });
    expect(handedOver).toBe(1);
    from = to;
  }
  await eventually(
    "all are handled",
    async () => (await rowsOf(url, "SELECT FROM hawser_peer_data.stored_messages")).length === 0,
  );
  // The one that stood still wakes, and can do no harm.
  listeners[2]?.kill("SIGCONT");
  await listeners[2]?.statuses.find(({ kind }) => kind === "name_lost");

  const epochs = await rowsOf(url, "SELECT epoch::float8 AS epoch FROM hawser_peer_data.peers WHERE name = 'a-1'");
  const epoch = epochs[0]?.["epoch"] as number;
  const ledger = (await readLedger(url)).map((row) => ({ ...row, number: Number(row.text) }));
  const firsts = [...new Set(ledger.map(({ number }) => number))];
  expect(firsts).toEqual(Array.from({ length: last - 1 }, (_, n) => n + 2));
  // Whoever had the channel began nothing that was committed; those who had lost it were in the middle of something.
  const owner = listeners.at(-1)?.pid;
  const again = ledger.filter((row) => row.pid === owner && row.cursorEpoch === epoch && row.cursor >= row.number);
  expect(again).toEqual([]);
  for (const { pid } of listeners) {
    const own = ledger.filter((row) => row.pid === pid).map(({ number }) => number);
    expect(own).toEqual([...own].sort((x, y) => x - y));
    expect(new Set(own).size).toBe(own.length);
  }
  expectNoGaps(...listeners);
});
