/**
 * The `hawser` command as a process of its own, on a test's database.
 */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { type Program, type ProgramOptions, startProgram } from "../../support/program.js";

/** How a command ended. */
type End = Awaited<Program["ended"]>;

/** How a command is started. */
export interface HawserOptions extends Omit<ProgramOptions, "stdin"> {
  /** Its database. */
  readonly databaseUrl?: string | undefined;
  /** Its whole standard input. */
  readonly input?: string | Uint8Array | undefined;
}

/** Starts a command; it is killed when the test has ended before it. */
export function startHawser(args: readonly string[], { databaseUrl, input, ...options }: HawserOptions = {}): Program {
  const env = { HAWSER_DATABASE_URL: databaseUrl, ...options.env };
  const program = startProgram("src/cli/main.ts", args, { ...options, env });
  onTestFinished(() => void program.child.kill("SIGKILL"));
  const stdin = program.child.stdin!;
  // A command that does not read its input, or ends before, closes it.
  stdin.on("error", () => undefined);
  if (input !== undefined) stdin.end(input);
  return program;
}

/** Runs a command to its end. */
export async function hawser(args: readonly string[], options: HawserOptions = {}): Promise<End> {
  return startHawser(args, { input: "", ...options }).ended;
}

/** The lines of its standard output, parsed. */
export function jsonLines(stdout: string): Record<string, unknown>[] {
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Resolves with the first line on standard error that matches. */
async function saysOnStderr(program: Program, pattern: RegExp): Promise<string> {
  const lines = createInterface({ input: program.child.stderr! });
  const ended = once(program.child, "close").then(() => {
    throw new Error(`it ended without having said ${pattern}`);
  });
  const found = new Promise<string>((resolve) => {
    lines.on("line", (line) => {
      if (pattern.test(line)) resolve(line);
    });
  });
  return await Promise.race([found, ended]);
}

/** Starts `hawser listen` and waits until it listens. */
export async function startListening(args: readonly string[], options: HawserOptions): Promise<Program> {
  const program = startHawser(["listen", ...args], options);
  await saysOnStderr(program, /^Listening at /);
  return program;
}

/** Whether a shell would find the program. */
export function isOnPath(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}
