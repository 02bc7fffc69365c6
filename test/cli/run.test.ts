import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { commands, plannedCommands } from "../../src/cli/commands.js";
import { projectDirectory, startProgram } from "../support/program.js";

const hawser = (...args: string[]) => startProgram("src/cli/main.ts", args, { env: { CI: "true" } }).ended;

describe("hawser", () => {
  it("prints its version", async () => {
    const { version } = JSON.parse(readFileSync(`${projectDirectory}package.json`, "utf8"));
    expect(await hawser("--version")).toMatchObject({ status: 0, stdout: `${version}\n`, stderr: "" });
  });

  it("lists its commands, those of later versions too, without control characters when not on a terminal", async () => {
    const { status, stdout } = await hawser("--help");
    expect(status).toBe(0);
    for (const name of Object.keys({ ...commands, ...plannedCommands })) expect(stdout).toContain(` ${name} `);
    expect(stdout).not.toContain("\u001b");
  });

  it("explains a command", async () => {
    const { status, stdout } = await hawser("dev", "--help");
    expect(status).toBe(0);
    expect(stdout).toContain("--directory=<DIR>");
    expect(stdout).toContain("HAWSER_DATABASE_URL");
  });

  it("without a command prints the list on standard error, and fails", async () => {
    const { status, stdout, stderr } = await hawser();
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain("No command is given.");
    expect(stderr).toContain("COMMANDS");
  });

  it.each([
    [["sned"], 'There is no command "sned". The commands are dev, '],
    [["toString"], 'There is no command "toString".'],
    [["--json", "dev"], "There is no flag --json before the command."],
    [["dev", "--jsn"], "`hawser dev`: Unknown option '--jsn'. Its flags are --help, --json, --directory."],
    [["dev", "--directory"], "`hawser dev`: Option '--directory <value>' argument missing."],
    [["dev", "--json=yes"], "`hawser dev`: Option '--json' does not take an argument."],
    [["dev", "now"], '`hawser dev` takes no arguments beside its flags, and "now" is one more.'],
    [["dev", "--", "--help"], '"--help" is one more.'],
  ])("refuses %j, naming what is wrong and where to look", async (args, message) => {
    const { status, stdout, stderr } = await hawser(...args);
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr).toMatch(/See `hawser (dev )?--help`\. \[invalid_argument\]\n$/);
  });

  it("says of a command that is not built yet that it is not, whatever its arguments", async () => {
    const { status, stderr } = await hawser("doctor", "--json");
    expect(status).toBe(69);
    expect(stderr).toBe(
      "hawser: `hawser doctor` is not built yet: this version of Hawser does not have it. [not_supported]\n",
    );
  });
});
