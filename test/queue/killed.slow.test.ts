/** Only what was unfinished runs again when the process of a worker was killed. */
import { expect, it, onTestFinished } from "vitest";
import { enqueueBatch } from "../../src/jobs-and-peers/peer/index.js";
import { peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { type Program, startProgram } from "../support/program.js";

/** Starts a worker in a process of its own, which is killed in the end. */
function launch(url: string, name = "first-never-ends", ...given: string[]): Program {
  const program = startProgram(`test/queue/programs/${name}.ts`, given, { env: { HAWSER_DATABASE_URL: url } });
  onTestFinished(async () => {
    program.child.kill("SIGKILL");
    await program.ended;
  });
  return program;
}

it("of 300 messages, of which the first is slow, all others are handled once when the process is killed behind them", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query("CREATE TABLE starts (what text, attempt integer)");
  const texts = Array.from({ length: 300 }, (_, number) => `${number}`);
  await enqueueBatch(world, "b", texts);
  const first = launch(world.url);
  await eventually("all others are done", async () => (await world.storedMessages()) === 1);
  first.child.kill("SIGKILL");
  await first.ended;
  launch(world.url);
  await eventually("it is done, too", async () => (await world.storedMessages()) === 0);
  const starts = await world.query<{ what: string; attempt: number }>("SELECT what, attempt FROM starts");
  expect(starts).toHaveLength(301);
  expect(new Set(starts.map(({ what }) => what)).size).toBe(300);
  expect(starts.filter(({ attempt }) => attempt > 1)).toEqual([{ what: "0", attempt: 2 }]);
});

it("what a killed process had read ahead runs at full concurrency in another one, and what it ran counts as tried", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query("CREATE TABLE starts (what text, attempt integer)");
  const killed = launch(world.url);
  await eventually("it runs", async () => (await world.query("SELECT FROM hawser_data.workers")).length === 1);
  await enqueueBatch(world, "b", new Array<string>(8).fill("0"));
  const hasRead = async (): Promise<number> => {
    const ofFirst = `SELECT id FROM hawser_data.workers WHERE name = 'b-1:${killed.child.pid}'`;
    const sql = `SELECT count(*) AS n FROM hawser_data.queue WHERE worker = (${ofFirst})`;
    return (await world.query<{ n: number }>(sql))[0]!.n;
  };
  await eventually("four run, and more is read ahead", async () => {
    return (await world.query("SELECT FROM starts")).length === 4 && (await hasRead()) > 4;
  });
  const attempts: number[] = [];
  const held: (() => void)[] = [];
  let had = 0;
  // All that the killed one had must run at once, before any of it ends.
  const handler = async (attempt: number): Promise<void> => {
    attempts.push(attempt);
    if (had === 0) return;
    await new Promise<void>((resolve) => {
      if (held.push(resolve) === had) for (const end of held) end();
    });
  };
  const other = world.worker("b-2", { concurrency: 8 });
  await other.handle("b", { takeoverMs: 2_000 }, ({ attempt }) => handler(attempt));
  await other.start();
  await eventually("the rest is done", async () => (await hasRead()) === (await world.storedMessages()));
  had = await hasRead();
  killed.child.kill("SIGKILL");
  const killedAt = performance.now();
  await eventually("all are done", async () => (await world.storedMessages()) === 0);
  console.log(`all were done ${Math.round(performance.now() - killedAt)} ms after the kill`);
  expect(attempts.toSorted()).toEqual([1, 1, 1, 1, 2, 2, 2, 2]);
});

it("messages that three processes under kills want later come then, as no attempt, and each has its effect once", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query(
    `CREATE TABLE starts (what text, attempt integer, at timestamptz DEFAULT clock_timestamp());
     CREATE TABLE wanted (what text, at timestamptz);
     CREATE TABLE effects (what text)`,
  );
  const texts = Array.from({ length: 60 }, (_, number) => `${number}`);
  const running = ["b-1", "b-2", "b-3"].map((name) => launch(world.url, "wants-later", name));
  await enqueueBatch(world, "b", texts.slice(0, 30));
  await enqueueBatch(world, "b", texts.slice(30), { priority: 1 });
  const wanted = async (): Promise<number> => (await world.query("SELECT FROM wanted")).length;
  let kills = 0;
  for (const limit of [60, 140, 220, 300, 380, 460]) {
    await eventually(`${limit} were wanted later`, async () => (await wanted()) >= limit);
    const nth = kills++ % running.length;
    running[nth]!.child.kill("SIGKILL");
    await running[nth]!.ended;
    running[nth] = launch(world.url, "wants-later", `b-${nth + 1}`);
  }
  await eventually("all are done", async () => (await world.storedMessages()) === 0);
  const effects = await world.query<{ what: string }>("SELECT what FROM effects");
  expect(effects.map(({ what }) => what).toSorted()).toEqual(texts.toSorted());
  expect(await world.deadLetters(0)).toEqual([]);
  // A process that is killed behind its row of `wanted` has not put the message off: four may be in that state.
  const [early] = await world.query<{ count: number }>(
    `SELECT count(*) AS count FROM wanted AS w
      WHERE EXISTS (SELECT FROM starts AS s WHERE s.what = w.what AND s.at > w.at - interval '100 ms' AND s.at < w.at)`,
  );
  expect(early!.count).toBeLessThanOrEqual(4 * kills);
  const [most] = await world.query<{ attempt: number }>("SELECT max(attempt) AS attempt FROM starts");
  expect(most!.attempt).toBeLessThanOrEqual(1 + kills);
  const [starts] = await world.query<{ count: number }>("SELECT count(*) AS count FROM starts");
  console.log(`${starts!.count} starts, ${early!.count} early, attempt ${most!.attempt} at most, ${kills} kills`);
});
