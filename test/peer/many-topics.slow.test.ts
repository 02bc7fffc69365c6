/**
 * Thousands of topics and channels: what a peer asks of Postgres, and how long it keeps others waiting, does not grow with
 * them.
 */

import pg from "pg";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { startProgram } from "../support/program.js";
import { type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

const roundTripMs = 16;
/** For how many polls statements are counted. */
const idlePolls = 16;
const topicsOf = (count: number): string[] => Array.from({ length: count }, (_, n) => `topic ${n}`);

async function aWorld(): Promise<PeerWorld> {
  const world = await peerWorld();
  onTestFinished(() => world[Symbol.asyncDispose]());
  return world;
}

/** A peer on a long wire to Postgres that subscribes to so many topics as it starts. */
async function distantPeer(world: PeerWorld, name: string, count: number): Promise<TestPeer> {
  const proxy = await startProxy(world.url, { roundTripMs });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const peer = world.peer(name, { databaseUrl: proxy.url });
  for (const topic of topicsOf(count)) await peer.recordTopic(topic);
  return peer;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

describe("a peer with thousands of topics", () => {
  it("starts with few statements over a long wire, while others start and subscribe", async () => {
    const world = await aWorld();
    const many = await distantPeer(world, "many-1", 5_000);
    const query = vi.spyOn(pg.Client.prototype, "query");
    onTestFinished(() => query.mockRestore());
    let isStarting = true;
    const starting = timed(() => many.record()).finally(() => {
      isStarting = false;
    });
    const others: number[] = [];
    for (let round = 0; isStarting || round < 3; round++) {
      const other = world.peer(`other-${round}`);
      others.push(await timed(() => other.record()), await timed(() => other.recordTopic(`news ${round}`)));
      await other.stop();
    }
    const tookMs = await starting;
    const [row] = await world.query<{ count: number }>(
      "SELECT count(*) FROM hawser_peer_data.listeners WHERE listener_name = 'many-1'",
    );
    expect(row?.count).toBe(5_001);
    // Also those of the others: one for each topic were many more.
    expect(query.mock.calls.length - 100 * others.length).toBeLessThan(1_000);
    const longest = Math.max(...others);
    console.log(
      `started in ${tookMs.toFixed(0)} ms; ${others.length} starts and subscriptions meanwhile, longest ${longest.toFixed(0)} ms`,
    );
  });

  it("stops with few statements, also right after it has started", async () => {
    const world = await aWorld();
    const many = await distantPeer(world, "many-1", 2_000);
    await many.record();
    const query = vi.spyOn(pg.Client.prototype, "query");
    onTestFinished(() => query.mockRestore());
    const tookMs = await timed(() => many.stop());
    console.log(`stopped in ${tookMs.toFixed(0)} ms with ${query.mock.calls.length} statements`);
    expect(query.mock.calls.length).toBeLessThan(500);
    expect(await world.query("SELECT FROM hawser_peer_data.listeners")).toEqual([]);
  });

  it("asks for them all in one statement while nothing happens", async () => {
    const topics = 2_000;
    // One for each topic in one of the polls alone were more.
    await idlesBelow(topics / 2, async (world) => sendToTopics(world, topics));
  });
});

it("a sender whose listeners are away asks for all their channels in one statement", async () => {
  const channels = 60;
  // Of each pair of polls, of the sender's outbox and of its inbox, one for each channel were four times as many.
  await idlesBelow((idlePolls / 2 / 4) * channels, async (world) => sendToAbsent(world, channels));
});

it("a process that is stopped while it registers keeps nobody out for good", async () => {
  const world = await aWorld();
  const other = await world.started("other-1");
  const program = startProgram("test/store/programs/register-topics.ts", ["stopped-1", "2000"], {
    env: { HAWSER_DATABASE_URL: world.url },
  });
  onTestFinished(async () => {
    program.child.kill("SIGKILL");
    await program.ended;
  });
  expect(await program.firstLine).toBe("held");
  const waits: number[] = [];
  for (let round = 0; round < 20; round++) {
    // Somewhere in a registration, and not always at the same place.
    const until = performance.now() + round * 17;
    await eventually("the moment has come", () => performance.now() >= until);
    program.child.kill("SIGSTOP");
    waits.push(await timed(() => other.recordTopic(`news ${round}`)));
    program.child.kill("SIGCONT");
  }
  console.log(`longest wait beside a stopped process: ${Math.max(...waits).toFixed(0)} ms`);
});

/** Polls so often, which nothing else does: a poll is known by its timer. */
const pollMs = 287;

/**
 * Waits, after `begin`, for some polls with fewer statements of this process than `limit`. What the beginning has left to do
 * may take some polls more; a statement too many in each poll does not go away.
 */
async function idlesBelow(limit: number, begin: (world: PeerWorld) => Promise<void>): Promise<void> {
  const real = polls.everyMs;
  const every = (ms: number) => Object.assign(polls, { everyMs: ms });
  every(pollMs);
  onTestFinished(() => void every(real));
  const world = await aWorld();
  await begin(world);
  const query = vi.spyOn(pg.Client.prototype, "query");
  onTestFinished(() => query.mockRestore());
  await eventually(`${idlePolls} polls have less than ${limit} statements`, async () => {
    query.mockClear();
    await polled(idlePolls);
    return query.mock.calls.length < limit;
  });
  console.log(`idle statements in ${idlePolls} polls: ${query.mock.calls.length}`);
  expect(query).toHaveBeenCalled();
  query.mockRestore();
  await world.reset();
  every(real);
}

/** Resolves when so many polls of any peer have ended. */
async function polled(count: number): Promise<void> {
  const timers = vi.spyOn(globalThis, "setTimeout");
  onTestFinished(() => timers.mockRestore());
  await eventually("they poll", () => timers.mock.calls.filter(([, ms]) => ms === pollMs).length >= count);
  timers.mockRestore();
}

async function sendToTopics(world: PeerWorld, count: number): Promise<void> {
  const [sender, listener] = [await world.started("sender-1"), world.peer("listener-1")];
  for (const topic of topicsOf(count)) await listener.recordTopic(topic);
  await listener.record();
  for (let first = 0; first < count; first += 500) {
    await Promise.all(
      topicsOf(count)
        .slice(first, first + 500)
        .map((topic) => sender.send(topic, "hello")),
    );
  }
}

async function sendToAbsent(world: PeerWorld, count: number): Promise<void> {
  const sender = await world.started("sender-1");
  const names = Array.from({ length: count }, (_, n) => `topic${n}-1`);
  const listeners = await Promise.all(names.map((name) => world.started(name)));
  await Promise.all(names.map((name) => sender.send(name.split("-")[0]!, "hello")));
  await Promise.all(listeners.map((listener) => listener.stop()));
  await Promise.all(names.map((name) => sender.send(name.split("-")[0]!, "wait")));
}
