/**
 * `hawser dev` as a process.
 */
import { onTestFinished } from "vitest";
import { answers } from "../../support/answers.js";
import { type Program, type ProgramOptions, startProgram } from "../../support/program.js";

/** Announcement of `hawser dev --json`. */
export interface Announcement {
  readonly databaseUrl: string;
  readonly natsUrl: string;
  readonly gatewayUrl: string;
  readonly directory: string;
  readonly monitorAddress: string | null;
}

/** Starts it, at ports that no other one has had before it. */
export function dev(args: readonly string[] = [], options: ProgramOptions = {}): Program {
  const { HAWSER_DATABASE_URL: databaseUrl, HAWSER_NATS_URL: natsUrl } = { ...process.env, ...options.env };
  const ports = [...(databaseUrl ? [] : ["--port", "0"]), ...(natsUrl ? [] : ["--nats-port", "0"])];
  return devAt([...ports, ...args], options);
}

/** Starts it at the ports that it takes by itself. */
export function devAt(args: readonly string[], options: ProgramOptions = {}): Program {
  return kill(startProgram("src/operating/cli/main.ts", ["dev", ...args], options));
}

/** Kills the program when the test has failed to end it. */
export function kill(program: Program): Program {
  onTestFinished(() => void program.child.kill("SIGKILL"));
  return program;
}

/** Whether one of its servers answers. */
export const anyAnswers = async ({ databaseUrl, natsUrl }: Announcement) =>
  (await answers(databaseUrl)) || (await answers(natsUrl));

/** Waits for the announcement of the program. */
export async function announced(program: Program): Promise<Announcement> {
  return JSON.parse(await program.firstLine) as Announcement;
}
