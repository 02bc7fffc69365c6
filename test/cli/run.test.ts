import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { commands } from "../../src/operating/cli/run.js";
import { nodeCommand } from "../support/built-programs.js";
import { projectDirectory, startCommand } from "../support/program.js";
import { hawser, hawserProcess } from "./support/hawser.js";

describe("hawser", () => {
  it("prints its version", async () => {
    const { version } = JSON.parse(readFileSync(`${projectDirectory}package.json`, "utf8"));
    expect(await hawserProcess(["--version"])).toMatchObject({ status: 0, stdout: `${version}\n`, stderr: "" });
  });

  it("lists its commands, without control characters when not on a terminal", async () => {
    const { status, stdout } = await hawser(["--help"]);
    expect(status).toBe(0);
    for (const name of Object.keys(commands)) expect(stdout).toContain(` ${name} `);
    expect(stdout).not.toContain("\u001b");
  });

  it("explains a command, with examples where it is about messages", async () => {
    const dev = await hawser(["dev", "--help"]);
    expect(dev.status).toBe(0);
    expect(dev.stdout).toContain("--directory=<DIR>");
    expect(dev.stdout).toContain("HAWSER_DATABASE_URL");
    for (const name of Object.keys(commands).filter((each) => each !== "dev" && each !== "extension")) {
      const { status, stdout } = await hawser([name, "--help"]);
      expect(status).toBe(0);
      expect(stdout).toMatch(new RegExp(`\\nEXAMPLES\\n\\n {2}.*\\n {4}.*hawser ${name}`));
      expect(stdout).toContain("--database-url=<URL>");
    }
  });

  it("ends in good order when the reader of its help has left", async () => {
    const script = '{ "$@"; echo "status $?" >&2; } | true';
    const command = [...nodeCommand("src/operating/cli/main.ts"), "--help"];
    const { stderr } = await startCommand("sh", ["-c", script, "sh", ...command]).ended;
    expect(stderr).toBe("status 0\n");
  });

  it("without a command prints the list on standard error, and fails", async () => {
    const { status, stdout, stderr } = await hawser([]);
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain("No command is given.");
    expect(stderr).toContain("COMMANDS");
  });

  it.each([
    [["sned"], 'There is no command "sned". Did you mean `hawser send`? The commands are dev, '],
    [["status"], 'There is no command "status". `hawser doctor` may be what you want. The commands are dev, '],
    [["job"], 'There is no command "job". Did you mean `hawser jobs`?'],
    [["xyz"], 'There is no command "xyz". The commands are dev, '],
    [["toString"], 'There is no command "toString".'],
    [["--json", "dev"], "There is no flag --json before the command."],
    [
      ["dev", "--jsn"],
      "`hawser dev`: Unknown option '--jsn'. Did you mean --json? Its flags are --help, --json, --directory, --port, --nats-port, --monitor.",
    ],
    [["dev", "--xyz=1"], "`hawser dev`: Unknown option '--xyz'. Its flags are"],
    [["send", "-5"], "`hawser send`: Unknown option '-5'. Write -- before an argument that begins with a dash."],
    [["send"], "`hawser send` needs TOPIC."],
    [["dev", "--directory"], "`hawser dev`: Option '--directory <value>' argument missing."],
    [["dev", "--json=yes"], "`hawser dev`: Option '--json' does not take an argument."],
    [["pending", "now"], '`hawser pending` takes no arguments beside its flags, and "now" is one more.'],
    [["pending", "--", "--help"], '"--help" is one more.'],
    [["dev", "npm", "test"], "`hawser dev -- COMMAND`: write -- before the command: `hawser dev -- npm test`."],
    [["dev", "now", "--", "npm"], "write -- before the command"],
    [["dev", "--"], "-- needs a command after it, such as -- npm test."],
    [["dev", "--json", "--", "npm"], "--json does not go with a command, whose output is printed instead; remove it."],
    [["peers", "frget"], '`hawser peers` cannot "frget". Did you mean forget? It can list, reassign, forget.'],
    [["peers", "forget"], "`hawser peers forget`: it needs NAME: `hawser peers forget NAME`."],
    [["peers", "forget", "a", "b"], '`hawser peers forget`: it takes NAME, and "b" is one more.'],
    [["peers", "list", "a"], '`hawser peers list`: it takes no name, and "a" is one more.'],
    [["peers", "--force"], "`hawser peers list`: --force goes with reassign."],
    [["dead", "retention", "5", "6"], '`hawser dead retention`: it takes one number of days, and "6" is one more.'],
    [["dead", "retention", "--limit", "5"], "`hawser dead retention`: --limit goes with the other actions."],
    [
      ["dead", "discard", "5", "--topic", "--all"],
      "`hawser dead`: --topic needs a value, and the next argument begins with a dash; write --topic=… if that is its value.",
    ],
    [["pending", "\u001b]0;x\u0007\u009b2J\u202e"], '"\\u001b]0;x\\u0007\\u009b2J\\u202e" is one more.'],
  ])("refuses %j, naming what is wrong and where to look", async (args, message) => {
    const { status, stdout, stderr } = await hawser(args);
    expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr.split("\n")).toHaveLength(2);
    expect(stderr).toMatch(/See `hawser (dev |send |dead |pending |peers )?--help`\. \[invalid_argument\]\n$/);
  });

  it("takes a negative number for the value of the option before it, which names its range", async () => {
    const { status, stderr } = await hawser(["serve", "--buffer", "-1"]);
    expect({ status, stderr }).toEqual({
      status: 64,
      stderr: expect.stringMatching(
        /^hawser: --buffer "-1" is not a size from 1MiB to 8GiB; write digits and a unit, such as .* \[invalid_argument\]/,
      ),
    });
  });

  it("says what to do where no Postgres is", async () => {
    for (const command of ["init", "topics"]) {
      const { status, stderr } = await hawser([command, "--database-url", "postgres://u@127.0.0.1:1/db"]);
      expect(status).toBe(69);
      expect(stderr).toContain(
        "ECONNREFUSED 127.0.0.1:1 [store_failed]\n  remedy: Start Postgres at this address, or name",
      );
    }
  });

  it.each([
    [[], "--database-url"],
    [["init"], "--database-url"],
    [["secret"], "--database-url"],
    [["dead"], "--database-url"],
    [["listen"], "***@db.internal/x"],
    [["dead", "list", "--older-than"], "***@db.internal/x"],
    [["dead", "list"], "***@db.internal/x"],
    [["send", "orders", "one", "--header"], "***@db.internal/x"],
    [["listen", "orders", "--count"], "***@db.internal/x"],
  ])(
    "does not say the password of a database URL that is given in the place of something else: %j",
    async (args, hint) => {
      const { status, stdout, stderr } = await hawser([...args, "postgres://u:ge@h:e im@db.internal/x"]);
      expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
      expect(stderr).toContain("postgres://***@db.internal/x");
      expect(stderr).toContain(hint);
      expect(stderr).not.toMatch(/e im|u:/);
    },
  );

  it.each([
    ["topics"],
    ["topics", "list"],
    ["dead", "list"],
    ["outbox", "cancel"],
    ["jobs", "list"],
    ["jobs", "show"],
    ["jobs", "cancel"],
    ["jobs", "import"],
  ])("does not say the password of keywords that are given in the place of something else: %j", async (...args) => {
    const { stderr } = await hawser([...args, "host=db.internal password='ge heim' user=u"]);
    expect(stderr).toContain("host=db.internal password=*** user=u");
    expect(stderr).not.toContain("heim");
  });
});
