/**
 * Postgres is killed under running peers, and comes back.
 */
import { expect, it } from "vitest";
import { runningPeer } from "../scenarios/support/peer-process.js";
import { patienceMs } from "./support/kills.js";
import { ownPostgres } from "./support/own-postgres.js";

it("costs nothing that was confirmed; everything goes on when it is back: 4 times", {
  timeout: patienceMs,
}, async () => {
  await using postgres = await ownPostgres();
  const [listener, away, sender] = await Promise.all([
    runningPeer(postgres.url, "b-1"),
    runningPeer(postgres.url, "c-1"),
    runningPeer(postgres.url, "a-1", { sendTimeoutMs: 120_000 }),
  ]);
  // For one listener messages are delivered, for the other they are stored.
  await sender.call("sendTo", "c", "hello");
  await away.finish();
  await sender.call("beginStream", { topic: "b", prefix: "live", window: 300, perSecond: 300 });
  let stored = 0;

  for (const [round, signal] of (["SIGKILL", "SIGQUIT", "SIGKILL", "SIGKILL"] as const).entries()) {
    await sender.confirmed.length(sender.confirmed.all.length + 100 + round * 70);
    expect((await sender.call("sendTo", "c", `stored ${++stored}`)).outcome).toBe("stored");
    const heard = listener.statuses.all.length;
    await postgres.kill(signal);
    const pending = sender.call("sendTo", "c", `stored ${++stored}`);
    // The listener handles on, and cannot commit.
    await listener.statuses.find(({ kind }) => kind === "listener_store_error", heard);
    const confirmed = sender.confirmed.all.length;
    await postgres.start();
    expect((await pending).outcome).toBe("stored");
    await sender.confirmed.length(confirmed + 100);
  }

  const last = await sender.call("endStream");
  await listener.messages.find(({ text }) => text === `live ${last}`);
  expect(sender.unconfirmed.all).toEqual([]);
  expect(sender.confirmed.all).toHaveLength(last);
  expect(listener.messages.all.map(({ text }) => text)).toEqual(
    Array.from({ length: last }, (_, n) => `live ${n + 1}`),
  );
  const back = await runningPeer(postgres.url, "c-1");
  await back.messages.length(stored);
  expect(back.messages.all.map(({ text }) => text)).toEqual(
    Array.from({ length: stored }, (_, n) => `stored ${n + 1}`),
  );
  const kinds = new Set([...listener.statuses.all, ...sender.statuses.all].map(({ kind }) => kind));
  expect([...kinds].filter((kind) => kind === "name_lost" || kind === "fenced" || kind === "gap")).toEqual([]);
  // Still theirs to stop in good order.
  expect(await Promise.all([listener.finish(), sender.finish(), back.finish()])).toEqual(
    Array(3).fill({ status: 0, signal: null }),
  );
});
