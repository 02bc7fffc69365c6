/**
 * `hawser listen` in a shell's pipeline, with a consumer that can be killed.
 */
import { createInterface } from "node:readline";
import { onTestFinished } from "vitest";
import { Log } from "../../peer/support/log.js";
import { type Program, projectDirectory, startCommand } from "../../support/program.js";

/** Tells its pid, then every line that it reads, until `stop` lines have come: then it reads no more. */
const consumerSource = `
  process.stderr.write("consumer " + process.pid + "\\n");
  const limit = Number(process.argv[1]);
  let count = 0;
  if (limit > 0) {
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
      console.log(line);
      count += 1;
    });
  } else setInterval(() => {}, 1000);
`;

/** A running pipeline. */
export interface Pipeline {
  readonly program: Program;
  /** What the consumer has read. */
  readonly lines: Log<string>;
  /** The process of `hawser`. */
  readonly listenerPid: Promise<number>;
  readonly consumerPid: Promise<number>;
  /** The exit status of `hawser`, when it has ended. */
  readonly status: Promise<number>;
}

/**
 * Starts `hawser <args> | consumer` in a shell.
 *
 * @param reads whether the consumer reads at all
 */
export function startPipeline(args: readonly string[], databaseUrl: string, reads = true): Pipeline {
  const script = `{ sh -c 'echo "hawser $$" >&2; exec "$@"' sh "$@"; echo "status $?" >&2; } | "$NODE" -e "$CONSUMER" ${reads ? 1 : 0}`;
  const command = [process.execPath, "--import", "tsx", "src/cli/main.ts", ...args];
  const program = startCommand("sh", ["-c", script, "sh", ...command], {
    cwd: projectDirectory,
    env: { HAWSER_DATABASE_URL: databaseUrl, NODE: process.execPath, CONSUMER: consumerSource },
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
