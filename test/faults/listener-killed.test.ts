/**
 * A listener that is killed, again and again, in the middle of a stream.
 */
import { expect, it, onTestFinished } from "vitest";
import { ledgerTable, readLedger } from "../scenarios/support/ledger.js";
import { type PeerProcess, peerProcess, runningPeer } from "../scenarios/support/peer-process.js";
import { testDatabase } from "../support/database.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { loopTimeoutMs } from "./support/kills.js";

const kills = 20;

it(
  "loses nothing confirmed, keeps the order and begins nothing that was done: killed 20 times",
  async () => {
    const database = await testDatabase();
    onTestFinished(() => database.drop());
    const { url } = database;
    await onServer(url, ledgerTable);
    const begun = performance.now();
    let cutDrains = 0;
    const make = (): PeerProcess => peerProcess(url, "b-1", { handler: "ledger", ledgerUrl: url });
    const sender = await runningPeer(url, "a-1");
    let listener = make();
    const listeners = [listener];
    await listener.call("run");
    // Slow enough for the channel to become live again; hurried where a death is to come in the middle of much.
    await sender.call("beginStream", { topic: "b", prefix: "message", window: 200, perSecond: 100 });

    for (let kill = 0; kill < kills; kill += 2) {
      const [draining, next] = [make(), make()];
      listeners.push(draining, next);
      await Promise.all([draining.ready(), next.ready()]);
      // One dies while it is live, after another number of messages each time.
      const confirmed = sender.confirmed.all.length;
      await sender.confirmed.find(({ outcome }) => outcome === "delivered", confirmed);
      await sender.call("hurryStream", 150);
      await listener.messages.length(listener.messages.all.length + 1 + ((kill * 53) % 97));
      await listener.crash();
      // The other has much to take, and dies in the middle of that.
      await sender.call("hurryStream", 200);
      await sender.confirmed.length(sender.confirmed.all.length + 200);
      await draining.call("run");
      await draining.messages.length(1 + ((kill * 29) % 97));
      await draining.crash();
      if ((await rowsOf(url, "SELECT FROM hawser.conn_messages")).length > 0) cutDrains++;
      await next.call("run");
      listener = next;
    }
    await listener.messages.length(1);
    const last = await sender.call("endStream");
    await listener.messages.find(({ text }) => text === `message ${last}`);
    const tookMs = performance.now() - begun;

    // Every message was confirmed, so none may be missing.
    expect(sender.unconfirmed.all).toEqual([]);
    expect(sender.confirmed.all).toHaveLength(last);
    const outcomes = new Set(sender.confirmed.all.map(({ outcome }) => outcome));
    expect(outcomes).toEqual(new Set(["delivered", "stored"]));

    const [{ epoch } = { epoch: 0 }] = (await rowsOf(
      url,
      "SELECT epoch::float8 AS epoch FROM hawser.peers WHERE name = 'a-1'",
    )) as { epoch: number }[];
    const ledger = (await readLedger(url)).map((row) => ({ ...row, number: Number(row.text.split(" ")[1]) }));
    const firsts = [...new Set(ledger.map(({ number }) => number))];
    expect(firsts).toEqual(Array.from({ length: last }, (_, index) => index + 1));
    // The sender has one epoch and one channel: its messages' numbers are the channel's.
    const doneBefore = ledger.filter(
      (row) => row.cursorEpoch > epoch || (row.cursorEpoch === epoch && row.cursor >= row.number),
    );
    expect(doneBefore).toEqual([]);
    // Nobody met a hole, as after an acknowledgement that was not committed.
    const gaps = listeners.flatMap(({ statuses }) => statuses.all.filter(({ kind }) => kind === "gap"));
    expect(gaps).toEqual([]);
    // Each of them was in the middle of it; of those that drained, most: one may have been quicker than we.
    expect(cutDrains).toBeGreaterThanOrEqual(kills / 4);
    expect(new Set(ledger.map(({ pid }) => pid))).toEqual(new Set(listeners.map(({ pid }) => pid)));

    const repeated = ledger.length - last;
    console.log(
      `${kills} kills in ${(tookMs / 1000).toFixed(1)} s: ${last} messages, ${repeated} begun more than once`,
    );
  },
  loopTimeoutMs(kills),
);
