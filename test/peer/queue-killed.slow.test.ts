/** Only what was unfinished runs again when the process of a peer was killed. */
import { expect, it, onTestFinished } from "vitest";
import { enqueueBatch } from "../../src/peer/index.js";
import { eventually } from "../support/eventually.js";
import { type Program, startProgram } from "../support/program.js";
import { peerWorld } from "./support/world.js";

it("of 300 messages, of which the first is slow, all others are handled once when the process is killed behind them", async () => {
  await using world = await peerWorld({ nats: false });
  await world.query("CREATE TABLE starts (what text, attempt integer)");
  const programs: Program[] = [];
  const launch = (): Program => {
    const env = { HAWSER_DATABASE_URL: world.url };
    const program = startProgram("test/peer/programs/first-never-ends.ts", [], { env });
    programs.push(program);
    return program;
  };
  onTestFinished(async () => {
    for (const { child, ended } of programs) {
      child.kill("SIGKILL");
      await ended;
    }
  });
  const texts = Array.from({ length: 300 }, (_, number) => `${number}`);
  await enqueueBatch(world, "b", texts);
  const first = launch();
  await eventually("all others are done", async () => (await world.storedMessages()) === 1);
  first.child.kill("SIGKILL");
  await first.ended;
  launch();
  await eventually("it is done, too", async () => (await world.storedMessages()) === 0);
  const starts = await world.query<{ what: string; attempt: number }>("SELECT what, attempt FROM starts");
  expect(starts).toHaveLength(301);
  expect(new Set(starts.map(({ what }) => what)).size).toBe(300);
  expect(starts.filter(({ attempt }) => attempt > 1)).toEqual([{ what: "0", attempt: 2 }]);
});
