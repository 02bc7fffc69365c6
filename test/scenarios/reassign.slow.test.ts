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

it("goes on to the new owner: what was stored, what comes late, and then live, each once and in order", async () => {
  const { url, store } = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const b1 = await runningPeer(url, "b-1");
  await send(a, "b", 1, 50);
  await b1.messages.length(50);
  // Committed, so that the death repeats nothing.
  await eventually("all are committed", async () => {
    const rows = await rowsOf(url, "SELECT FROM hawser_data.cursors WHERE number = 50");
    return rows.length === 1;
  });
  await b1.crash();
  expect(new Set(await send(a, "b", 51, 150))).toEqual(new Set(["stored b-1"]));

  // The heir serves the topic, but nobody sends to it: all of this is of the channel that was handed over.
  const heir = await runningPeer(url, "heir-1");
  const handing = store.reassign({ from: "b-1", to: "heir-1" });
  const late = send(a, "b", 151, 250);
  expect(await handing).toMatchObject([{ channelName: "a-1:a:b-1" }]);
  await late;
  // It does not serve the topic, so it has them as dead letters: in order, none missing, and none twice.
  await eventually("all are dead letters", async () => {
    return (await store.deadLetters.list()).length === 200;
  });
  const dead = await rowsOf(
    url,
    "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.dead_letters ORDER BY id",
  );
  expect(dead.map(({ text }) => text)).toEqual(upTo(250, 51));
  expect(texts(b1)).toEqual(upTo(50));

  // The sender has found the new owner by itself, and is connected to it under the old name.
  await eventually("the channel is live again", async () => {
    const [receipt] = await send(a, "b", 251, 251);
    return receipt === "delivered b-1";
  });
  await heir.finish();
  expectNoGaps(heir, b1);
});

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

it("leaves the old listener nothing when it is back, until the channels are handed back", async () => {
  const { url, store } = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  let b1 = await runningPeer(url, "b-1");
  await send(a, "b", 1, 3);
  await committed(url, 3);
  await b1.crash();
  await send(a, "b", 4, 6);
  await store.reassign({ from: "b-1", to: "b-2" });

  // Back in the directory, and nothing of the old channel comes to it: not even what is sent to it by name.
  b1 = await runningPeer(url, "b-1");
  expect(new Set(await send(a, "b", 7, 9))).toEqual(new Set(["stored b-1"]));
  const b2 = await runningPeer(url, "b-2");
  await b2.messages.length(6);
  expect(texts(b2)).toEqual(upTo(9, 4));
  // A sender that it meets from now on reaches itself.
  const c = await runningPeer(url, "c-1");
  expect(new Set(await send(c, "b", 100, 101))).toEqual(new Set(["delivered b-1", "delivered b-2"]));
  expect(b1.messages.all.map(({ sender }) => sender)).toEqual(["c-1"]);

  await b2.finish();
  const owned = await store.ownedChannels("b-2");
  const channelIds = owned.filter(({ madeFor }) => madeFor === "b-1").map(({ channelId }) => channelId);
  expect(await store.reassign({ from: "b-2", to: "b-1", channelIds })).toMatchObject([
    { channelName: "a-1:a:b-1", stored: 0 },
  ]);
  await eventually("the sender is live with it again", async () => {
    const [receipt] = await send(a, "b", 10, 10);
    return receipt === "delivered b-1";
  });
  expect(b1.messages.all.at(-1)).toMatchObject({ sender: "a-1", text: "10" });
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
