/** `attempts`: how often the handler of one message is called before it is a dead letter. */
import { expect, it } from "vitest";
import { type EnqueueOptions, enqueue, enqueueBatch } from "../../src/jobs-and-peers/peer/index.js";
import { sharedPeerWorld } from "../peer/support/shared-world.js";

const world = sharedPeerWorld();
const retry = { attempts: 2, delayMs: 1 };

/** Attempts of each dead letter by its payload, once there are so many. */
async function deadAttempts(count: number): Promise<Record<string, number>> {
  const letters = await world.deadLetters(count);
  return Object.fromEntries(letters.map(({ payload, attempts }) => [String(payload), attempts as number]));
}

it.each(["alone", "transactional", "in a batch"])("counts in place of that of a handler (%s)", async (kind) => {
  const b = world.worker("b-1", { defaults: { retry } });
  const fail = () => {
    throw new Error("no");
  };
  if (kind === "in a batch") await b.handleBatch("b", { maxMessages: 1 }, fail);
  else await b.handle("b", { transactional: kind === "transactional" }, fail);
  await b.start();
  await enqueue(world, "b", "default");
  await enqueue(world, "b", "once", { attempts: 1 });
  await world.peer("a-1").enqueue(world, "b", "of a peer", { attempts: 4, headers: { a: "b" }, ttlMs: 60_000 });
  await enqueueBatch(world, "b", ["first", "second"], { attempts: 3 });
  expect(await deadAttempts(5)).toEqual({ default: 2, once: 1, "of a peer": 4, first: 3, second: 3 });
});

it("is an argument of each function that enqueues, also of what is due later, and stays when a dead letter is retried", async () => {
  const b = await world.working("b-1", { defaults: { retry } }, () => {
    throw new Error("no");
  });
  await world.query(`SELECT hawser.enqueue('b', 'now', attempts => 1),
    hawser.enqueue('b', 'later', deliver_at => now() + interval '1 ms', headers => '{"a": "b"}', attempts => 3),
    hawser.enqueue_unique('b', 'unique', 'k', attempts => 1), hawser.enqueue_batch('b', ARRAY['batch'], attempts => 1),
    hawser.enqueue_after('b', 'after', '{}', attempts => 3), hawser.enqueue('b', 'odd', headers => '{"message-attempts": "many"}')`);
  const all = { now: 1, later: 3, unique: 1, batch: 1, after: 3, odd: 2 };
  expect(await deadAttempts(6)).toEqual(all);
  const ids = (await world.query<{ id: string }>("SELECT id FROM hawser_data.dead_letters")).map(({ id }) => id);
  await world.query(`SELECT FROM hawser.retry_dead_letters('{${ids.join()}}')`);
  await b.received.length(22);
  expect(await deadAttempts(6)).toEqual(all);
});

it("is refused if it is no number from 1 to 32767, or the message is for NATS", async () => {
  for (const attempts of [0, 32_768, 1.5, "3"]) {
    const options = { attempts } as EnqueueOptions;
    const message = `attempts ${attempts}: must be a whole number from 1 to 32767`;
    await expect(enqueue(world, "b", "x", options)).rejects.toMatchObject({ code: "invalid_argument", message });
  }
  for (const attempts of [0, 32_768])
    await expect(world.query(`SELECT hawser.enqueue('b', 'x', attempts => ${attempts})`)).rejects.toMatchObject({
      code: "22023",
    });
  const message = "attempts 1: applies to topics only; leave it out";
  await expect(enqueue(world, { subject: "a" }, "x", { attempts: 1 })).rejects.toMatchObject({ message });
});
