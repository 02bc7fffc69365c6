/**
 * `hawser dev`, which starts servers of its own, and how it ends.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { eventually } from "../support/eventually.js";
import { type Program, type ProgramOptions, projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { type Announcement, announced, anyAnswers, dev, kill } from "./support/dev.js";

/** Both servers have stopped, some time after whoever started them. */
const stopped = (urls: Announcement) =>
  eventually("both servers have stopped", async () => !(await anyAnswers(urls)), 60_000);

function npmRunDev(options: ProgramOptions = {}): Program {
  return kill(startCommand("npm", ["run", "-s", "hawser", "--", "dev", "--json"], options));
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** The pid that Postgres wrote into its data directory. */
function postgresPid(directory: string): number {
  return Number.parseInt(readFileSync(join(directory, "postgres/postmaster.pid"), "utf8"), 10);
}

describe("hawser dev --json", () => {
  it("stops everything on Ctrl-C, which a terminal sends to the whole process group", async () => {
    const program = dev(["--json"], { ownGroup: true });
    const urls = await announced(program);
    process.kill(-program.pid, "SIGINT");
    expect(await program.ended).toMatchObject({ status: 0 });
    expect(await anyAnswers(urls)).toBe(false);
  });

  it("at a second Ctrl-C does not wait any longer for a server that does not stop", async () => {
    const directory = join(temporaryDirectory(), "data");
    const program = dev(["--json", "--directory", directory]);
    const urls = await announced(program);
    const postgres = postgresPid(directory);
    process.kill(postgres, "SIGSTOP");
    // Not until its end: Node does not catch a signal any more when it is about to leave.
    const impatience = setInterval(() => isAlive(postgres) && program.child.kill("SIGINT"), 100);
    onTestFinished(() => clearInterval(impatience));
    const begun = performance.now();
    expect(await program.ended).toMatchObject({ status: 0 });
    // And not for as long as the server has to stop in order.
    expect(performance.now() - begun).toBeLessThan(10_000);
    expect(await anyAnswers(urls)).toBe(false);
  });

  it("run by npm, stops everything on SIGTERM with status 0", async () => {
    const program = npmRunDev();
    const urls = await announced(program);
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0 });
    await stopped(urls);
  });

  it("run by npm, stops everything on Ctrl-C", async () => {
    const program = npmRunDev({ ownGroup: true });
    const urls = await announced(program);
    process.kill(-program.pid, "SIGINT");
    await program.ended;
    await stopped(urls);
  });

  it.each([
    ["runs it as a script", ["run", "-s", "hawser", "--"]],
    [
      "runs it through a shell, as npx does",
      ["exec", "-c", `${nodeCommand("src/cli/main.ts").join(" ")} dev --json; true`],
    ],
  ])("stops everything when an npm that %s is killed", async (_, args) => {
    const rest = args[0] === "run" ? ["dev", "--json"] : [];
    const program = kill(startCommand("npm", [...args, ...rest], { stdin: "ignore" }));
    const urls = await announced(program);
    program.child.kill("SIGKILL");
    await stopped(urls);
  });

  it("stops everything when it is killed itself", async () => {
    const program = dev(["--json"]);
    const urls = await announced(program);
    program.child.kill("SIGKILL");
    await stopped(urls);
  });

  it("stops everything when the pipe on its standard input closes", async () => {
    const program = dev(["--json"]);
    const urls = await announced(program);
    program.child.stdin!.end();
    expect(await program.ended).toMatchObject({ status: 0 });
    expect(await anyAnswers(urls)).toBe(false);
  });

  it("in the background of a script stays when the script has ended", async () => {
    const output = join(temporaryDirectory(), "output");
    const node = `${nodeCommand("src/cli/main.ts").join(" ")} dev --json`;
    execFileSync("sh", ["-c", `${node} >"${output}" 2>/dev/null </dev/null & echo $! >"${output}.pid"`], {
      cwd: projectDirectory,
      stdio: "ignore",
    });
    const pid = Number(readFileSync(`${output}.pid`, "utf8"));
    onTestFinished(() => void process.kill(pid, "SIGTERM"));
    const hasStarted = () => existsSync(output) && readFileSync(output, "utf8").endsWith("\n");
    await eventually("it has started", hasStarted, 60_000);
    const urls = JSON.parse(readFileSync(output, "utf8")) as Announcement;
    expect(await anyAnswers(urls)).toBe(true);
  });

  it("told to stop while it starts, ends with status 0 and leaves nothing behind", async () => {
    const temporary = temporaryDirectory();
    const program = dev(["--json"], { env: { TMPDIR: temporary } });
    await eventually("it is starting", () => readdirSync(temporary).some((name) => name.startsWith("hawser-dev-")));
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0, stdout: "" });
    expect(readdirSync(temporary).filter((name) => name.startsWith("hawser-dev-"))).toEqual([]);
  });
});

describe("hawser dev", () => {
  it("tells people the URLs, which programs run and where the data is", async () => {
    const directory = join(temporaryDirectory(), "data");
    const program = dev(["--directory", directory]);
    await program.firstLine;
    await eventually("it listens to signals", () => existsSync(join(directory, "hawser-dev.json")));
    program.child.kill("SIGINT");
    const { status, stdout } = await program.ended;
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Postgres \d+\.\d+ {2}postgresql:\/\/.*\n {2}from (npm|HAWSER_POSTGRES_BINARIES)/);
    expect(stdout).toMatch(/nats-server \d+\.\d+\.\d+ {2}nats:\/\//);
    expect(stdout).toMatch(/^hawser serve {2}postgres:\/\/\S+ {2}\(for the SQL functions only\)$/m);
    const [, url] = /^Postgres \S+ {2}(\S+)$/m.exec(stdout)!;
    expect(stdout).toContain(`  export HAWSER_DATABASE_URL=${url}\n`);
    expect(stdout).toContain(directory);
    expect(existsSync(join(directory, "postgres/PG_VERSION"))).toBe(true);
  });

  it("fails, and stops the other server, when one of them ends by itself", async () => {
    const directory = join(temporaryDirectory(), "data");
    const program = dev(["--json", "--directory", directory]);
    const urls = await announced(program);
    // SIGTERM would wait for the sessions to end, and one is that of `hawser serve`.
    process.kill(postgresPid(directory), "SIGINT");
    const { status, stderr } = await program.ended;
    expect(status).toBe(69);
    expect(stderr).toContain("Postgres ended by itself");
    expect(await anyAnswers(urls)).toBe(false);
  });
});
