/** A pause holds in all processes, whichever of them are killed, and nothing is lost or handled twice by it. */
import { expect, it } from "vitest";
import { enqueueBatch, pauseTopic, resumeTopic } from "../../src/jobs-and-peers/peer/index.js";
import { eventually } from "../support/eventually.js";
import { startCrew } from "./support/crew.js";
import { peerWorld } from "./support/world.js";

const rounds = 12;
/** Half of them come before the pause, half while it lasts. */
const perRound = 40;

it("nothing begins between the moment when all have heard of a pause and its end, while processes are killed", async () => {
  await using world = await peerWorld({ nats: false });
  const count = async (sql: string, values?: unknown[]): Promise<number> =>
    (await world.query<{ n: number }>(`SELECT count(*) AS n FROM ${sql}`, values))[0]!.n;
  const now = async () => (await world.query<{ at: Date }>("SELECT clock_timestamp() AS at"))[0]!.at;
  const crew = await startCrew(world, ["b-1", "b-2", "b-3"]);
  const pauses: { from: Date; to: Date }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const texts = Array.from({ length: perRound }, (_, number) => `${round * perRound + number}`);
    await enqueueBatch(world, "jobs", texts.slice(perRound / 2));
    await eventually("some have begun", async () => (await count("starts")) > round * 10);
    if (round % 2 === 0) await crew.kill();
    await pauseTopic(world, "jobs");
    // A take that was under way may still give messages: behind it, in the same session, a beat tells of the pause.
    const paused = await now();
    const running = "hawser_data.workers AS w LEFT JOIN hawser_data.queue AS q ON q.worker = w.id AND q.topic = 'jobs'";
    const mayBegin = `${running} WHERE w.gone_at IS NULL AND (w.beat_at < $1 OR q.id IS NOT NULL)`;
    await eventually("all have heard, and have none", async () => (await count(mayBegin, [paused])) === 0);
    const from = await now();
    if (round % 3 === 0) await crew.kill();
    await enqueueBatch(world, "jobs", texts.slice(0, perRound / 2));
    await enqueueBatch(world, "other", ["1", "2", "3"]);
    await eventually("others go on", async () => (await count("hawser_data.queue WHERE topic = 'other'")) === 0);
    pauses.push({ from, to: await now() });
    expect(await resumeTopic(world, "jobs")).toBe(true);
  }
  await eventually("all are done", async () => (await world.storedMessages()) === 0);
  for (const { from, to } of pauses) expect(await count("starts WHERE at > $1 AND at < $2", [from, to])).toBe(0);
  const ended = await world.query<{ what: string }>("SELECT what FROM ended WHERE what <> 'other'");
  expect(ended).toHaveLength(rounds * perRound);
  expect(new Set(ended.map(({ what }) => what)).size).toBe(rounds * perRound);
  console.log(`${rounds} pauses, ${crew.kills} kills, ${await count("starts")} starts of ${ended.length} messages`);
});
