/**
 * Two processes whose handlers each await a send to the other: neither may wait for the other for ever.
 */
import { expect, it } from "vitest";
import { peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { ownDatabase, textsOf } from "./support/own-database.js";
import { runningPeer } from "./support/peer-process.js";

const rounds = 1_000;
const limitMs = 60_000;

it.each([1, 10])(
  "do not wait for ever: 1,000 rounds with %i going round",
  async (messages) => {
    const url = await ownDatabase();
    // As users have it.
    const { ackTimeoutMs } = peerSettingsDefaults;
    const [a, b] = await Promise.all([
      runningPeer(url, "a-1", { handler: "round", ackTimeoutMs }),
      runningPeer(url, "b-1", { handler: "round", ackTimeoutMs }),
    ]);
    const begun = performance.now();
    // From a to b and back again is a round; each handler ends when its send is confirmed.
    const names = Array.from({ length: messages }, (_, n) => `m${n}`);
    const hops = (2 * rounds) / messages;
    for (const name of names) void a.call("sendTo", "b", `${name} ${hops - 1}`);
    await a.messages.until("all have come back for the last time", (all) => all.length === rounds, limitMs);
    const tookMs = performance.now() - begun;
    console.log(
      `1,000 rounds, ${messages} going round: ${(tookMs / 1000).toFixed(1)} s, ${(tookMs / rounds).toFixed(1)} ms each`,
    );
    expect(tookMs).toBeLessThan(limitMs);
    // Each came once on each of its ways.
    const expected = (odd: 0 | 1) =>
      names.flatMap((name) => Array.from({ length: hops / 2 }, (_, n) => `${name} ${2 * n + odd}`)).sort();
    expect(textsOf(a).sort()).toEqual(expected(0));
    expect(textsOf(b).sort()).toEqual(expected(1));
    expect(await Promise.all([a.finish(), b.finish()])).toEqual(Array(2).fill({ status: 0, signal: null }));
  },
  limitMs + 30_000,
);
