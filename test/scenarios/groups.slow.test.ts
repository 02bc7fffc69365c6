/**
 * Real processes: members of a group that are killed and come back.
 */
import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase } from "./support/own-database.js";
import { type PeerProcess, peerProcess, runningPeer } from "./support/peer-process.js";

/** As users have it. */
const ackTimeoutMs = 2_000;

it("members are killed and come back at any moment: all is handled, in order in each channel, and nothing is left", async () => {
  const url = await ownDatabase();
  const options = { defaults: { group: true, takeoverMs: 1_000 }, handlerMs: 1 };
  const all: PeerProcess[] = [];
  const start = async (name: string): Promise<PeerProcess> => {
    const started = peerProcess(url, name, options);
    all.push(started);
    await started.call("run");
    return started;
  };
  const members = new Map<string, PeerProcess>();
  for (const name of ["b-1", "b-2", "b-3"]) members.set(name, await start(name));
  const a = await runningPeer(url, "a-1", { tuning: { ackTimeoutMs } });
  await a.call("beginStream", { topic: "b", prefix: "n", window: 2_000, perSecond: 200 });
  for (let round = 0; round < 6; round++) {
    const name = `b-${(round % 3) + 1}`;
    await members.get(name)?.crash();
    // Sometimes it is back before it is missed; sometimes what is stored for it is released, under load.
    await delay([50, 1_900, 2_600, 3_500][round % 4]);
    members.set(name, await start(name));
    await delay([1_500, 30, 400][round % 3]);
  }
  const last = await a.call("endStream");
  expect(a.unconfirmed.all).toEqual([]);
  const begun = () => all.flatMap((member) => member.begun.all.map((each) => ({ ...each, member })));
  await eventually("all are handled", () => new Set(begun().map(({ text }) => text)).size === last, 60_000);

  const channels = new Map<string, number>();
  const first = new Map<string, PeerProcess>();
  const again: string[] = [];
  let jobs = 0;
  for (const { id, text, member } of begun().toSorted((x, y) => x.at - y.at)) {
    if (first.has(text)) {
      again.push(text);
      continue;
    }
    first.set(text, member);
    const [channelName, , number] = String(id).split("/") as [string, string?, string?];
    // A job, for which no member had room.
    if (number === undefined) {
      jobs += 1;
      continue;
    }
    expect(Number(number), `${id} is behind those before it`).toBeGreaterThan(channels.get(channelName) ?? 0);
    channels.set(channelName, Number(number));
  }
  console.log(
    `${last} messages, ${jobs} as jobs, the others over ${channels.size} channels, ${again.length} handled again`,
  );
  // Only what one had begun that was killed: those that run now were not.
  const alive = new Set(members.values());
  expect(again.filter((text) => alive.has(first.get(text)!))).toEqual([]);
  await eventually("nothing is left", async () => {
    const left = "SELECT FROM hawser_peer_data.stored_messages UNION ALL SELECT FROM hawser_data.queue";
    return (await rowsOf(url, left)).length === 0;
  });
}, 180_000);
