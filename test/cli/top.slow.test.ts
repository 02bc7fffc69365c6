/** `hawser top` in a terminal, which `script` of util-linux makes. */
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { type Program, projectDirectory, startCommand } from "../support/program.js";
import { isOnPath } from "./support/hawser.js";

const hasScript = process.platform === "linux" && isOnPath("script");

const enter = "\u001b[?1049h\u001b[?25l\u001b[?7l";
const leave = "\u001b[?7h\u001b[?25h\u001b[?1049l";

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

/** Program in a terminal of 110 columns and 30 rows. */
interface InTerminal {
  readonly script: Program;
  /** All that the terminal has received so far. */
  readonly output: () => string;
  /** Lines of the newest whole picture, without colors. */
  readonly picture: () => string[];
  /** Process id of the program. */
  readonly pid: () => number;
  /** Changes the size of the terminal. */
  readonly resize: (columns: number, rows: number) => void;
}

/**
 * Runs a command in a terminal, between two lines with the settings of the terminal. A last line has the exit status.
 */
function inTerminal(command: readonly string[]): InTerminal {
  const shell = `tty; stty cols 110 rows 30; stty -g; sh -c 'echo "pid $$"; exec ${command.join(" ")}'; echo "status $?"; stty -g`;
  const script = startCommand("script", ["-qec", shell, "/dev/null"], {
    cwd: projectDirectory,
    env: { HAWSER_DATABASE_URL: database.url, TERM: "xterm", CI: undefined, NO_COLOR: undefined },
  });
  onTestFinished(() => void script.child.kill("SIGKILL"));
  let output = "";
  script.child.stdout!.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  return {
    script,
    output: () => output,
    picture: () => {
      const pictures = output.split("\u001b[H").slice(1);
      const whole = pictures.findLast((each) => each.includes("\u001b[J"))?.split("\u001b[J")[0] ?? "";
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the colors of a terminal.
      return whole.replace(/\u001b\[[\d;]*[mK]/g, "").split(/\r*\n/);
    },
    pid: () => Number(/pid (\d+)/.exec(output)![1]),
    resize: (columns, rows) => {
      const [path] = /\/dev\/pts\/\d+/.exec(output)!;
      expect(spawnSync("stty", ["-F", path, "cols", String(columns), "rows", String(rows)]).status).toBe(0);
    },
  };
}

const top = (...args: string[]) => inTerminal([...nodeCommand("src/operating/cli/main.ts"), "top", ...args]);

/** Checks the exit status, and that the terminal is as it was. */
async function expectRestored({ script }: InTerminal, status: number): Promise<string> {
  const { stdout } = await script.ended;
  const settings = stdout.match(/^[\da-f:]{40,}\r$/gm);
  expect(settings).toHaveLength(2);
  expect(settings![1]).toBe(settings![0]);
  expect(stdout).toContain(`status ${status}\r\n`);
  expect(stdout.split(enter)).toHaveLength(2);
  expect(stdout.split(leave)).toHaveLength(2);
  expect(stdout.indexOf(leave)).toBeGreaterThan(stdout.indexOf(enter));
  return stdout.slice(stdout.indexOf(leave) + leave.length);
}

const kept = (picture: readonly string[], start: string): boolean => picture.some((line) => line.startsWith(start));

describe.runIf(hasScript)("hawser top in a terminal", () => {
  it("refreshes, pauses, follows the size of the window, and quits with q", async () => {
    const terminal = top("--interval", "500ms");
    const { picture, resize, script } = terminal;
    await eventually("it has a verdict", () => picture().some((line) => /^VERDICT {2}.*checks/.test(line)));
    expect(picture()[0]).toContain(" every 500ms; space pauses, n and p turn pages, s sorts, q quits ");
    expect(kept(picture(), "PEERS  none")).toBe(true);
    await onServer(
      database.url,
      "INSERT INTO hawser_peer_data.peers (name, epoch, clean) VALUES ('crashed', 1, false)",
    );
    await eventually("it shows the peer", () => kept(picture(), "crashed "));

    resize(40, 6);
    await eventually("it has six lines", () => picture().length === 6);
    expect(picture().filter((line) => line.length > 40)).toEqual([]);
    expect(picture().at(-1)).toMatch(/^… \d+ more lines$/);
    resize(140, 40);
    await eventually("it shows the peer again", () => kept(picture(), "crashed "));

    script.child.stdin!.write("s");
    await eventually("it sorts", () => picture()[0]!.includes("  by waiting  "));

    script.child.stdin!.write(" ");
    await eventually("it is paused", () =>
      picture()[0]!.includes("  paused; space goes on, n and p turn pages, q quits"),
    );
    const [at] = /\d{4}-\S+Z/.exec(picture()[0]!)!;
    script.child.stdin!.write(" ");
    await eventually("it goes on", () => !picture()[0]!.includes(at) && !picture()[0]!.includes("paused"));

    script.child.stdin!.write("xq");
    expect(await expectRestored(terminal, 0)).toMatch(/^status 0\r\n/);
  });

  it.each<[string, (terminal: InTerminal) => unknown]>([
    ["SIGTERM", (terminal: InTerminal) => process.kill(terminal.pid(), "SIGTERM")],
    ["SIGINT", (terminal: InTerminal) => process.kill(terminal.pid(), "SIGINT")],
    ["Ctrl-C", (terminal: InTerminal) => terminal.script.child.stdin!.write("\u0003")],
  ])("restores the terminal after %s", async (_, stop) => {
    const terminal = top("--interval", "1h");
    await eventually("it shows numbers", () => kept(terminal.picture(), "PEERS"));
    stop(terminal);
    await expectRestored(terminal, 0);
  });

  it("says that Postgres is away, shows the last numbers, and goes on when it is back", async () => {
    await using own = await testDatabase();
    const name = new URL(own.url).pathname.slice(1);
    await onServer(own.url, "INSERT INTO hawser_peer_data.peers (name, epoch, clean) VALUES ('before', 1, false)");
    const terminal = top("--interval", "500ms", "--database-url", `"${own.url}"`);
    const { picture } = terminal;
    await eventually("it shows the peer", () => kept(picture(), "before "));
    await onServer(
      database.url,
      `ALTER DATABASE ${name} ALLOW_CONNECTIONS false`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
    );
    await eventually("it says so", () => /^Trying again; the numbers are from /.test(picture()[1] ?? ""));
    expect(kept(picture(), "before ")).toBe(true);
    await onServer(database.url, `ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    await onServer(own.url, "INSERT INTO hawser_peer_data.peers (name, epoch, clean) VALUES ('later', 1, false)");
    await eventually("it shows the new peer", () => kept(picture(), "later "));
    expect(kept(picture(), "Trying again")).toBe(false);
    terminal.script.child.stdin!.write("q");
    await expectRestored(terminal, 0);
  });

  it("restores the terminal before an uncaught error is printed", async () => {
    const terminal = inTerminal(nodeCommand("test/cli/programs/screen-defect.ts"));
    expect(await expectRestored(terminal, 1)).toContain("Error: a defect for a test");
  });

  it("prints once with --once, and in a terminal without control sequences", async () => {
    for (const terminal of [
      top("--once"),
      inTerminal(["env", "TERM=dumb", ...nodeCommand("src/operating/cli/main.ts"), "top"]),
    ]) {
      const { stdout } = await terminal.script.ended;
      expect(stdout).toContain("VERDICT");
      expect(stdout).toContain("status 0\r\n");
      expect(stdout).not.toContain("\u001b[?");
    }
  });
});
