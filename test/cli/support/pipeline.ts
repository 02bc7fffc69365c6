/**
 * `hawser listen` in a shell's pipeline, with a consumer that can be killed.
 */
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { Log } from "../../peer/support/log.js";
import { nodeCommand } from "../../support/built-programs.js";
import { type Program, projectDirectory, startCommand } from "../../support/program.js";

/** Tells its pid, then every line that it reads; with the argument 0 it reads nothing, and stays. */
const consumerSource = `
  process.stderr.write("consumer " + process.pid + "\\n");
  if (process.argv[1] !== "0") {
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
      console.log(line);
    });
  } else setInterval(() => {}, 1000);
`;

/** A running pipeline. */
export interface Pipeline {
  readonly program: Program;
  /** Lines that the consumer has read. */
  readonly lines: Log<string>;
  /** The process of `hawser`. */
  readonly listenerPid: Promise<number>;
  readonly consumerPid: Promise<number>;
  /** The exit status of `hawser`, when it has ended. */
  readonly status: Promise<number>;
}

/**
 * Runs a shell's script in the project, in which `"$@"` is `hawser` with the arguments. All of it is killed when the test
 * has ended before it.
 */
export function startShell(
  script: string,
  args: readonly string[],
  databaseUrl: string,
  env: Record<string, string> = {},
): Program {
  const command = [...nodeCommand("src/operating/cli/main.ts"), ...args];
  const program = startCommand("sh", ["-c", script, "sh", ...command], {
    cwd: projectDirectory,
    env: { HAWSER_DATABASE_URL: databaseUrl, ...env },
    stdin: "ignore",
    ownGroup: true,
  });
  onTestFinished(() => {
    try {
      process.kill(-program.pid, "SIGKILL");
    } catch {
      // All of it has ended.
    }
  });
  return program;
}

/**
 * Starts `hawser <args> | consumer` in a shell.
 *
 * @param reads whether the consumer reads at all
 */
export function startPipeline(args: readonly string[], databaseUrl: string, reads = true): Pipeline {
  const script = `{ sh -c 'echo "hawser $$" >&2; exec "$@"' sh "$@"; echo "status $?" >&2; } | "$NODE" -e "$CONSUMER" ${reads ? 1 : 0}`;
  const program = startShell(script, args, databaseUrl, { NODE: process.execPath, CONSUMER: consumerSource });
  const lines = new Log<string>();
  createInterface({ input: program.child.stdout! }).on("line", (line) => lines.push(line));
  const told = new Log<string>();
  createInterface({ input: program.child.stderr! }).on("line", (line) => told.push(line));
  const number = async (name: string): Promise<number> => {
    const line = await told.find((each) => each.startsWith(`${name} `));
    return Number(line.slice(name.length + 1));
  };
  return {
    program,
    lines,
    listenerPid: number("hawser"),
    consumerPid: number("consumer"),
    status: number("status"),
  };
}
