/** Program that `hawser dev -- COMMAND` runs while its servers run. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { HawserError } from "../../foundation/errors/index.js";
import { within } from "../../foundation/runtime/index.js";
import { refusal } from "./command-line.js";
import type { StopRequest } from "./long-running.js";

/** Program with its arguments. */
export type CommandLine = readonly [program: string, ...args: string[]];

/**
 * Command line after `--`; undefined without one.
 *
 * @param rawArgs arguments of `hawser dev`
 * @param positionals all arguments that are not flags
 * @throws HawserError `invalid_argument` if there is no program after `--`, or one before it
 */
export function commandLineOf(rawArgs: readonly string[], positionals: readonly string[]): CommandLine | undefined {
  const at = rawArgs.indexOf("--");
  const [program, ...args] = at === -1 ? [] : rawArgs.slice(at + 1);
  const given = program === undefined ? 0 : args.length + 1;
  if (positionals.length > given) {
    throw refusal("dev", "-- COMMAND", `write -- before the command: \`hawser dev -- ${positionals.join(" ")}\``);
  }
  if (at !== -1 && program === undefined)
    throw refusal("dev", "-- COMMAND", "-- needs a command after it, such as -- npm test");
  return program === undefined ? undefined : [program, ...args];
}

/** Time for the program to end on SIGTERM after a server has ended by itself. */
const termMs = 5_000;

/**
 * Exit status of `hawser dev` after a stop request: 128 plus the number of the signal. @param reason reason of the
 * request
 */
export function statusOfStop(reason: unknown): number {
  return 128 + constants.signals[signalOf(reason)];
}

/** Signal that the stop request came with; SIGTERM for one without a signal, such as the end of the parent process. */
function signalOf(reason: unknown): NodeJS.Signals {
  return String(reason) in constants.signals ? (reason as NodeJS.Signals) : "SIGTERM";
}

/**
 * Runs a program, and resolves with its exit status: 128 plus the number of the signal, if a signal ended it.
 *
 * @param options.environment variables added to those of this process; undefined removes one
 * @param options.request stop requests, whose signals are passed on; the second one becomes SIGKILL
 * @param options.failed rejects if the servers have failed: the program is then ended
 * @throws HawserError `invalid_argument` if it cannot be started; the error of `failed`
 */
export async function runProgram(
  [program, ...args]: CommandLine,
  {
    environment,
    request,
    failed,
  }: {
    readonly environment: Readonly<Record<string, string | undefined>>;
    readonly request: StopRequest;
    readonly failed: Promise<unknown>;
  },
): Promise<number> {
  const refusalOf = (cause: Error): HawserError => {
    const message = `cannot run "${program}": ${cause.message}; name a program that is on the PATH, or its file`;
    return new HawserError("invalid_argument", message, { cause });
  };
  let child: ChildProcess;
  try {
    child = spawn(program, args, { stdio: "inherit", env: { ...process.env, ...environment } });
  } catch (cause) {
    // Node.js reports some errors by an event, and others, such as arguments that are too long, by an exception.
    throw refusalOf(cause as Error);
  }
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (cause) => reject(refusalOf(cause)));
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
  const pass = (): void => {
    const { reason } = request.signal;
    // The terminal sends Ctrl-C to the program too.
    if (reason === "SIGINT" && process.stdin.isTTY) return;
    child.kill(signalOf(reason));
  };
  const kill = (): void => void child.kill("SIGKILL");
  request.signal.addEventListener("abort", pass);
  if (request.signal.aborted) pass();
  request.hurry.addEventListener("abort", kill);
  try {
    const orphaned = failed.then(() => ended);
    return await Promise.race([ended, orphaned]);
  } catch (error) {
    child.kill("SIGTERM");
    await within(
      termMs,
      ended.catch(() => undefined),
    );
    kill();
    throw error;
  } finally {
    request.signal.removeEventListener("abort", pass);
    request.hurry.removeEventListener("abort", kill);
  }
}
