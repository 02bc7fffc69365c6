/**
 * Costs of an announcement of an unknown channel.
 */
import { expect, it } from "vitest";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { AnnouncedChannels, announcedChannels } from "../../src/jobs-and-peers/peer/receiving/announced-channels.js";
import { ManualClock } from "../support/manual-clock.js";
import { gate } from "./support/gate.js";

const longestPauseMs = outboxConstants.slowPollMs / 2;

/** Channels of which the keys in `real` can be opened, and what was asked: keys, or "all". */
function made(real: readonly number[] = []) {
  const asked: (readonly number[] | "all")[] = [];
  const clock = new ManualClock();
  let held = gate();
  const channels = new AnnouncedChannels(
    {
      open: async (keys) => {
        asked.push(keys);
        await held.opened;
        return keys.some((key) => real.includes(key));
      },
      findAll: async () => {
        asked.push("all");
        await held.opened;
      },
    },
    clock,
  );
  /** Lets what can go on do so. */
  const turn = () => new Promise(setImmediate);
  const add = async (...keys: readonly number[]): Promise<void> => {
    for (const key of keys) channels.add(key);
    await turn();
  };
  /** The query under way is answered. */
  const answer = async (): Promise<void> => {
    held.open();
    held = gate();
    await turn();
  };
  const pass = async (): Promise<void> => {
    clock.advance(longestPauseMs);
    await turn();
  };
  return { channels, asked, clock, add, answer, pass };
}

it("the first is looked up at once, and all that come meanwhile with one query after a pause", async () => {
  const { asked, add, answer, pass } = made();
  await add(1);
  expect(asked).toEqual([[1]]);
  await add(2, 3, 2);
  await answer();
  expect(asked).toHaveLength(1);
  await pass();
  expect(asked).toEqual([[1], [2, 3]]);
});

it("after a channel was opened there is no pause", async () => {
  const { asked, clock, add, answer } = made([1]);
  await add(1);
  await add(2);
  await answer();
  expect(asked).toEqual([[1], [2]]);
  expect(clock.timers).toBe(0);
});

it("after a pause in which nothing came, the next one is looked up at once", async () => {
  const { asked, add, answer, pass } = made();
  await add(1);
  await answer();
  await pass();
  expect(asked).toHaveLength(1);
  await add(2);
  expect(asked).toEqual([[1], [2]]);
});

it("more keys than are kept are one look for all channels with messages", async () => {
  const { asked, add, answer, pass } = made();
  await add(1);
  await add(...Array.from({ length: 5 * announcedChannels }, (_, key) => key + 2));
  await answer();
  await pass();
  await answer();
  await pass();
  expect(asked).toEqual([[1], "all"]);
  // What comes after that look began is looked up again.
  await add(2);
  expect(asked.at(-1)).toEqual([2]);
});

it("as many as are kept are looked up by their keys", async () => {
  const { asked, add, answer, pass } = made();
  await add(1);
  await add(...Array.from({ length: announcedChannels }, (_, key) => key + 1));
  await answer();
  await pass();
  expect(asked[1]).toHaveLength(announcedChannels);
});

it("nothing is asked after the end", async () => {
  const { channels, asked, clock, add, answer, pass } = made();
  await add(1);
  await add(2);
  await answer();
  channels.stop();
  await add(3);
  await pass();
  expect(asked).toEqual([[1]]);
  expect(clock.timers).toBe(0);
});
