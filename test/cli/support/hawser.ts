/**
 * The `hawser` command on a test's database: in this process, or as one of its own where that is what is tested.
 */

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Readable, Writable } from "node:stream";
import { onTestFinished } from "vitest";
import { runCli } from "../../../src/operating/cli/run.js";
import type { PeerWorld } from "../../peer/support/world.js";
import { type Program, type ProgramOptions, startProgram } from "../../support/program.js";
import { tableNamed } from "../../support/tables.js";

/** End of a command: status, signal and output. */
type End = Awaited<Program["ended"]>;

/** Input and environment of a command. */
export interface HawserOptions {
  /** Its database. */
  readonly databaseUrl?: string | undefined;
  /** Its whole standard input. */
  readonly input?: string | Uint8Array | undefined;
  /** True if standard input and standard error are a terminal to the command. Only for {@link hawser}. */
  readonly terminal?: boolean;
  /** Variables to add to the environment; undefined takes one out. */
  readonly env?: Record<string, string | undefined>;
}

let isRunning = false;

/**
 * Runs a command to its end as `main.ts` does, but in this process: a process takes a third of a second. One at a time,
 * as it has standard input, output and the environment of this process.
 */
export async function hawser(args: readonly string[], options: HawserOptions = {}): Promise<End> {
  if (isRunning) throw new Error("another command runs in this process; use hawserProcess");
  isRunning = true;
  const [stdout, stderr] = [new Collected(), new Collected()];
  const stdin = Readable.from([Buffer.from(options.input ?? "")]);
  if (options.terminal) {
    Object.assign(stdin, { isTTY: true });
    Object.assign(stderr, { isTTY: true, hasColors: () => false });
  }
  const undo = [
    replaceStream("stdin", stdin),
    replaceStream("stdout", stdout),
    replaceStream("stderr", stderr),
    setEnvironment({ HAWSER_DATABASE_URL: options.databaseUrl, ...options.env }),
  ];
  const before = process.exitCode;
  process.exitCode = undefined;
  try {
    const failed = await runCli(args);
    // The exit status of commands that print what is wrong, as `hawser doctor` does.
    const status = failed || Number(process.exitCode ?? 0);
    return { status, signal: null, stdout: stdout.text, stderr: withoutNodeWarnings(stderr.text) };
  } finally {
    process.exitCode = before;
    for (const each of undo) each();
    isRunning = false;
  }
}

/**
 * Removes warnings of Node, which other files of this worker may have caused and which Node prints once, at any time.
 */
function withoutNodeWarnings(text: string): string {
  return text.replace(/^\(node:\d+\) .*\n(\(Use `node --trace-.*\n)?/gm, "");
}

/** Stream that keeps the output of a command. */
class Collected extends Writable {
  readonly #chunks: Buffer[] = [];

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }
}

function replaceStream(name: "stdin" | "stdout" | "stderr", stream: Readable | Writable): () => void {
  const before = Object.getOwnPropertyDescriptor(process, name)!;
  Object.defineProperty(process, name, { configurable: true, enumerable: true, value: stream });
  return () => void Object.defineProperty(process, name, before);
}

function setEnvironment(wanted: Record<string, string | undefined>): () => void {
  const set = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  const before = Object.keys(wanted).map((name) => [name, process.env[name]] as const);
  for (const [name, value] of Object.entries(wanted)) set(name, value);
  return () => {
    for (const [name, value] of before) set(name, value);
  };
}

/** Options of a command in a process of its own. */
export interface HawserProcessOptions extends Omit<ProgramOptions, "stdin">, HawserOptions {}

/** Starts a command as a process of its own; it is killed when the test has ended before it. */
export function startHawser(
  args: readonly string[],
  { databaseUrl, input, ...options }: HawserProcessOptions = {},
): Program {
  const env = { HAWSER_DATABASE_URL: databaseUrl, ...options.env };
  const program = startProgram("src/operating/cli/main.ts", args, { ...options, env });
  onTestFinished(() => void program.child.kill("SIGKILL"));
  const stdin = program.child.stdin!;
  // A command that does not read its input, or ends before, closes it.
  stdin.on("error", () => undefined);
  if (input !== undefined) stdin.end(input);
  return program;
}

/** Runs a command to its end as a process of its own. */
export async function hawserProcess(args: readonly string[], options: HawserProcessOptions = {}): Promise<End> {
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
export async function startListening(args: readonly string[], options: HawserProcessOptions): Promise<Program> {
  const program = startHawser(["listen", ...args], options);
  await saysOnStderr(program, /^Listening at /);
  return program;
}

/** Whether a shell would find the program. */
export function isOnPath(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

/** Whether a session waits for a lock on a table of Hawser. */
export async function waitsFor(table: string, world: PeerWorld): Promise<boolean> {
  const waiting = await world.query(
    `SELECT FROM pg_locks WHERE relation = $1::regclass AND NOT granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    [tableNamed(table)],
  );
  return waiting.length > 0;
}
