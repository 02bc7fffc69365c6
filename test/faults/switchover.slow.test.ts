/**
 * Planned switchovers, as Patroni makes them: the primary ends in order, the standby is promoted, a proxy leads to it, and
 * the old primary comes back as its standby. Peers go on under their names, soon, and nothing that was confirmed is lost.
 */
import { expect, it, onTestFinished } from "vitest";
import { Peer } from "../../src/peer/index.js";
import { migrate } from "../../src/store/index.js";
import { Log } from "../peer/support/log.js";
import { runningPeer } from "../scenarios/support/peer-process.js";
import { startProxy } from "../store/support/proxy.js";
import { atDepth } from "../support/depth.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { patienceMs } from "./support/kills.js";

const perSecond = 50;
/** Durations without a primary, in turn: from none to longer than a peer continues without renewing its lease. */
const downMs = [0, 4_000, 12_000];
/** Rounds: each duration once with a cut answer, and once without. */
const rounds = atDepth(2 * downMs.length);

/** A sender that sends one number after another, and a listener. */
interface Pair {
  readonly confirmed: Log<{ readonly number: number }>;
  readonly received: Log<number>;
  readonly lost: string[];
  /** The newest number that was sent. */
  sent(): Promise<number>;
  /** Ends the stream. Returns its last number; every number was confirmed or refused then. */
  end(): Promise<number>;
}

async function inOneProcess(databaseUrl: string): Promise<Pair> {
  const settings = { listen: "127.0.0.1:0", databaseUrl };
  const [a, b] = [
    new Peer({ ...settings, name: "c-1", topic: "c" }),
    new Peer({ ...settings, name: "d-1", topic: "d" }),
  ];
  const confirmed = new Log<{ readonly number: number }>();
  const received = new Log<number>();
  const lost: string[] = [];
  for (const peer of [a, b]) peer.on("status", ({ kind }) => kind === "name_lost" && lost.push(peer.name));
  await a.handle(a.topic, () => undefined);
  await a.start();
  await b.handle(b.topic, ({ payload }) => received.push(Number(Buffer.from(payload).toString().split(" ")[1])));
  await b.start();
  let sent = 0;
  const sending: Promise<void>[] = [];
  const timer = setInterval(() => {
    const number = ++sent;
    sending.push(
      a.send("d", `x ${number}`).then(
        () => confirmed.push({ number }),
        () => undefined,
      ),
    );
  }, 1_000 / perSecond);
  onTestFinished(async () => {
    clearInterval(timer);
    await Promise.all([a.stop(), b.stop()]);
  });
  return {
    confirmed,
    received,
    lost,
    sent: async () => sent,
    end: async () => {
      clearInterval(timer);
      await Promise.all(sending);
      return sent;
    },
  };
}

async function inTwoProcesses(databaseUrl: string): Promise<Pair> {
  const [a, b] = [await runningPeer(databaseUrl, "a-1"), await runningPeer(databaseUrl, "b-1")];
  const received = new Log<number>();
  const lost: string[] = [];
  let read = 0;
  const takeOver = (): void => {
    for (; read < b.messages.all.length; read++) received.push(Number(b.messages.all[read]!.text.split(" ")[1]));
    for (const { statuses } of [a, b]) {
      if (statuses.all.some(({ kind }) => kind === "name_lost") && lost.length === 0) lost.push("a or b");
    }
  };
  const timer = setInterval(takeOver, 10);
  onTestFinished(() => clearInterval(timer));
  await a.call("beginStream", { topic: "b", prefix: "x", window: 5_000, perSecond });
  return {
    confirmed: a.confirmed,
    received,
    lost,
    sent: () => a.call("streamed"),
    end: async () => (await a.call("endStream")) as number,
  };
}

it(`two peers in one process, and in two, are live again after each of ${rounds} switchovers, and nothing is lost`, {
  timeout: patienceMs + rounds * 40_000,
}, async () => {
  await using servers = await startPrimaryAndStandby();
  await migrate({ databaseUrl: servers.primary.url });
  await using oneProxy = await startProxy(servers.primary.url);
  await using twoProxy = await startProxy(servers.primary.url);
  const proxies = [oneProxy, twoProxy];
  const pairs = [await inOneProcess(oneProxy.url), await inTwoProcesses(twoProxy.url)];
  await Promise.all(pairs.map(({ received }) => received.length(1)));
  const tookMs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // Some of them as unlucky as they can be.
    if (round % 2 === 1) for (const proxy of proxies) void proxy.cutAt("hawser.own_name", "answered");
    await servers.switchOver(downMs[round % downMs.length]);
    for (const proxy of proxies) proxy.leadTo(servers.primary.url);
    const promotedAt = performance.now();
    await Promise.all(pairs.map(isLive));
    tookMs.push(performance.now() - promotedAt);
    expect(pairs.map(({ lost }) => lost)).toEqual([[], []]);
    await servers.rejoin();
  }
  const live = tookMs.map((ms) => `${(ms / 1_000).toFixed(1)} s`).join(", ");
  console.log(`${rounds} switchovers, live after ${live}`);
  for (const pair of pairs) await check(pair);
});

/** Resolves when a message that is sent after the call is handled and confirmed. */
async function isLive({ sent, received, confirmed }: Pair): Promise<void> {
  const since = await sent();
  const isNewer = (number: number): boolean => number > since;
  await Promise.all([received.find(isNewer), confirmed.find(({ number }) => isNewer(number))]);
}

/** All that was confirmed is handled, in order. */
async function check(pair: Pair): Promise<void> {
  const last = await pair.end();
  const confirmed = new Set(pair.confirmed.all.map(({ number }) => number));
  await pair.received.until("all that was confirmed is handled", (all) => {
    const handled = new Set(all);
    return [...confirmed].every((number) => handled.has(number));
  });
  const first = [...new Set(pair.received.all)];
  const again = pair.received.all.length - first.length;
  console.log(`${last} sent, ${confirmed.size} confirmed, ${again} handled again`);
  expect(first).toEqual([...first].sort((one, other) => one - other));
  expect(pair.lost).toEqual([]);
}
