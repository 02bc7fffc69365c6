/** Processes that handle the topics of `recorded-jobs.ts`, some of which are killed and started again. */
import { onTestFinished } from "vitest";
import { type Program, startProgram } from "../../support/program.js";
import type { PeerWorld } from "./world.js";

export interface Crew {
  /** Kills one of the processes, and starts its successor. */
  kill(): Promise<void>;
  readonly kills: number;
}

/** Starts processes that are killed when the test ends. */
export async function startCrew(world: PeerWorld, names: readonly string[], concurrency = 4): Promise<Crew> {
  await world.query(`
    CREATE TABLE starts (what text, peer text, at timestamptz DEFAULT clock_timestamp());
    CREATE TABLE ended (what text, peer text);`);
  const running = new Map<string, Program>();
  const start = (name: string): void => {
    const env = { HAWSER_DATABASE_URL: world.url };
    running.set(name, startProgram("test/peer/programs/recorded-jobs.ts", [name, String(concurrency)], { env }));
  };
  const kill = async (name: string): Promise<void> => {
    running.get(name)!.child.kill("SIGKILL");
    await running.get(name)!.ended;
  };
  onTestFinished(async () => void (await Promise.all(names.map(kill))));
  for (const name of names) start(name);
  await Promise.all([...running.values()].map(({ firstLine }) => firstLine));
  let kills = 0;
  return {
    get kills() {
      return kills;
    },
    async kill() {
      const name = names[kills % names.length]!;
      kills += 1;
      await kill(name);
      start(name);
    },
  };
}
