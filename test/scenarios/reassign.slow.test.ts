/**
 * Real processes: a listener dies, and another one takes its channels.
 */
import { expect, it, onTestFinished } from "vitest";
import { HawserError } from "../../src/errors/index.js";
import { openStore, type Store } from "../../src/store/index.js";
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

const texts = (peer: PeerProcess): string[] => peer.messages.all.map(({ text }) => text);
const upTo = (last: number, from = 1): string[] => Array.from({ length: last - from + 1 }, (_, n) => `${n + from}`);

/** Sends numbered messages, one after another, and resolves with their outcomes and the names on the receipts. */
async function send(peer: PeerProcess, topic: string, from: number, to: number): Promise<string[]> {
  const sent: Promise<{ outcome: string; peer: string }>[] = [];
  for (let n = from; n <= to; n++) sent.push(peer.call("sendTo", topic, `${n}`));
  return (await Promise.all(sent)).map((receipt) => `${receipt.outcome} ${receipt.peer}`);
}

/** Nobody met a hole. */
function expectNoGaps(...peers: PeerProcess[]): void {
  expect(peers.flatMap(({ statuses }) => statuses.all.filter(({ kind }) => kind === "gap"))).toEqual([]);
}

/** Waits for the commit: stored and uncommitted messages of a slow machine would come again when the listener ends. */
async function committed(url: string, number: number): Promise<void> {
  await eventually(`${number} messages are committed`, async () => {
    const rows = await rowsOf(url, "SELECT number::int FROM hawser_data.cursors");
    return rows.some((row) => row["number"] === number);
  });
}

it("loses nothing and repeats nothing committed while a stream goes on", async () => {
  const { url, store } = await ownDatabase();
  await onServer(url, ledgerTable);
  const a = await runningPeer(url, "a-1");
  const b1 = await runningPeer(url, "b-1", { handler: "ledger", ledgerUrl: url });
  await a.call("beginStream", { topic: "b", prefix: "x", window: 200, perSecond: 200 });
  await b1.messages.length(50);
  await a.call("hurryStream", 300);
  await b1.crash();
  await a.confirmed.length(a.confirmed.all.length + 50);
  const b2 = await runningPeer(url, "b-2", { handler: "ledger", ledgerUrl: url });
  await store.reassign({ from: "b-1", to: "b-2" });
  // Live with the new owner, by the old name: the sender did not have to be told.
  await a.statuses.find(
    (status) => status.kind === "peer_connected" && status.peer === "b-1",
    a.statuses.all.findLastIndex((status) => status.kind === "peer_disconnected"),
  );
  await a.confirmed.length(a.confirmed.all.length + 200);
  const last = await a.call("endStream");
  await eventually(
    "all are handled",
    async () => (await rowsOf(url, "SELECT FROM hawser_data.stored_messages")).length === 0,
  );

  expect(a.unconfirmed.all).toEqual([]);
  const ledger = (await readLedger(url)).map(({ text, pid }) => ({ number: Number(text.split(" ")[1]), pid }));
  expect([...new Set(ledger.map(({ number }) => number))].sort((x, y) => x - y)).toEqual(
    Array.from({ length: last }, (_, n) => n + 1),
  );
  // Nobody began twice what it began itself; the new owner may repeat what the old one had not committed.
  for (const pid of [b1.pid, b2.pid]) {
    const own = ledger.filter((row) => row.pid === pid).map(({ number }) => number);
    expect(new Set(own).size).toBe(own.length);
  }
  expectNoGaps(b1, b2);
});

it("may come in the middle of a drain: everything is handled, in order, and nothing again that was committed", async () => {
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
    async () => (await rowsOf(url, "SELECT FROM hawser_data.stored_messages")).length === 0,
  );
  // The one that stood still wakes, and can do no harm.
  listeners[2]?.kill("SIGCONT");
  await listeners[2]?.statuses.find(({ kind }) => kind === "name_lost");

  const epochs = await rowsOf(url, "SELECT epoch::float8 AS epoch FROM hawser_data.peers WHERE name = 'a-1'");
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

it("is done by another peer of the topic after takeoverMs, and by one of them only", async () => {
  const { url } = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const b1 = await runningPeer(url, "b-1");
  await send(a, "b", 1, 10);
  await committed(url, 10);
  await b1.crash();
  expect(new Set(await send(a, "b", 11, 300))).toEqual(new Set(["stored b-1"]));
  await a.finish();
  const heirs = await Promise.all(
    ["b-2", "b-3", "b-4"].map((name) => runningPeer(url, name, { defaults: { takeoverMs: 1_000 } })),
  );
  // A listener of something else has no part in it.
  const other = await runningPeer(url, "c-1", { defaults: { takeoverMs: 1_000 } });
  await eventually("they are taken over", async () => {
    return (await rowsOf(url, "SELECT FROM hawser_data.stored_messages")).length === 0;
  });
  const taken = heirs.filter(({ messages }) => messages.all.length > 0);
  expect(taken).toHaveLength(1);
  expect(texts(taken[0] as PeerProcess)).toEqual(upTo(300, 11));
  expect(other.messages.all).toEqual([]);
  expectNoGaps(...heirs);
});
