/**
 * `hawser dev`, which starts servers of its own, and how it ends.
 */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { nodeCommand } from "../support/built-programs.js";
import { eventually } from "../support/eventually.js";
import { ownPort } from "../support/own-port.js";
import { type Program, type ProgramOptions, projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { type Announcement, announced, anyAnswers, dev, devAt, kill } from "./support/dev.js";

/** Both servers have stopped, some time after whoever started them. */
const stopped = (urls: Announcement) =>
  eventually("both servers have stopped", async () => !(await anyAnswers(urls)), 60_000);

/** At ports that no other one has had before it. */
const anyPorts = ["--json", "--port", "0", "--nats-port", "0"];

function npmRunDev(options: ProgramOptions = {}): Program {
  return kill(startCommand("npm", ["run", "-s", "hawser", "--", "dev", ...anyPorts], options));
}

/** Has the port, unless somebody else has it. */
async function listener(port: number): Promise<AsyncDisposable> {
  const server = createServer().listen(port, "127.0.0.1");
  await once(server, "listening").catch(() => undefined);
  return {
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => void server.close(() => resolve())),
  };
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
    // And not for as long as serve and the server have to stop in order, which is longer than that even on an idle machine.
    expect(performance.now() - begun).toBeLessThan(28_000);
    await stopped(urls);
  });

  it("run by npm, stops everything on SIGTERM with status 0", async () => {
    const program = npmRunDev();
    const urls = await announced(program);
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0 });
    await stopped(urls);
  });

  it.each([
    ["runs it as a script", ["run", "-s", "hawser", "--", "dev", ...anyPorts]],
    [
      "runs it through a shell, as npx does",
      ["exec", "-c", `${nodeCommand("src/operating/cli/main.ts").join(" ")} dev ${anyPorts.join(" ")}; true`],
    ],
  ])("stops everything when an npm that %s is killed", async (_, args) => {
    const program = kill(startCommand("npm", args, { stdin: "ignore" }));
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
    const node = `${nodeCommand("src/operating/cli/main.ts").join(" ")} dev ${anyPorts.join(" ")}`;
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
    const log = () => readFileSync(join(directory, "serve.log"), "utf8");
    await eventually("the log of its `hawser serve` has what it does", () =>
      /"msg":"became the leader of the subscriptions"/.test(log()),
    );
    program.child.kill("SIGINT");
    const { status, stdout } = await program.ended;
    expect(status).toBe(0);
    expect(stdout).toMatch(/^Postgres \d+\.\d+ {2}postgresql:\/\/.*\n {2}from (npm|HAWSER_POSTGRES_BINARIES)/);
    expect(stdout).toMatch(/nats-server \d+\.\d+\.\d+ {2}nats:\/\//);
    expect(stdout).toMatch(/^hawser serve {2}postgres:\/\/\S+ {2}\(for the SQL functions only\)$/m);
    const [, port] = /^Postgres \S+ {2}postgresql:\/\/\*\*\*@127\.0\.0\.1:(\d+)\/postgres$/m.exec(stdout)!;
    const password = readFileSync(join(directory, "postgres/hawser-password"), "utf8").trim();
    const [, natsUrl] = /^nats-server \S+ {2}(\S+)$/m.exec(stdout)!;
    expect(stdout).toContain(
      `  export HAWSER_DATABASE_URL=postgresql://postgres:${password}@127.0.0.1:${port}/postgres\n`,
    );
    // In quotes if it begins with a hyphen.
    expect(stdout.replaceAll(`'${password}'`, password)).toContain(
      `  export PGHOST=127.0.0.1 PGPORT=${port} PGDATABASE=postgres PGUSER=postgres PGPASSWORD=${password}\n`,
    );
    // Nowhere else: who shows somebody the lines above shows no password.
    expect(stdout.split(password)).toHaveLength(3);
    expect(stdout).toContain(`  export NATS_URL=${natsUrl}\n`);
    expect(stdout).toContain(`Log of hawser serve  ${join(directory, "serve.log")}\n`);
    expect(existsSync(join(directory, "postgres/PG_VERSION"))).toBe(true);
  });

  it("serves metrics and health where it is told to, and says where", async () => {
    const program = dev(["--json", "--monitor", "127.0.0.1:0"]);
    const urls = await announced(program);
    const get = async (path: string) => await fetch(`http://${urls.monitorAddress}${path}`);
    await eventually("it is ready", async () => (await get("/readyz")).status === 200);
    expect(await (await get("/metrics")).text()).toMatch(/^hawser_\w+\{.*database="postgres"/m);
    const other = dev(["--json", "--monitor", urls.monitorAddress!]);
    const { status, stdout, stderr } = await other.ended;
    expect({ status, stdout }).toEqual({ status: 73, stdout: "" });
    expect(stderr).toContain(urls.monitorAddress);
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 0 });
  });

  it("refuses a wrong address of metrics before it starts anything, and without one serves none", async () => {
    const { status, stderr } = await dev(["--json", "--monitor", "9464"]).ended;
    expect(status).toBe(64);
    expect(stderr).toMatch(/--monitor: "9464" is not an address/);
    expect(stderr).not.toContain("Starting");
    const program = dev(["--json"]);
    expect((await announced(program)).monitorAddress).toBeNull();
    program.child.kill("SIGTERM");
    await program.ended;
  });

  it("has the ports that it is given, at each start, and says it where one of them is taken", async () => {
    const [port, natsPort] = [await ownPort(), await ownPort()];
    const directory = join(temporaryDirectory(), "data");
    const args = ["--json", "--directory", directory, "--port", `${port}`, "--nats-port", `${natsPort}`];
    for (let time = 1; time <= 2; time++) {
      const program = devAt(args);
      const urls = await announced(program);
      expect(urls).toMatchObject({
        databaseUrl: expect.stringMatching(`^postgresql://postgres:[\\w-]+@127\\.0\\.0\\.1:${port}/postgres$`),
        natsUrl: `nats://127.0.0.1:${natsPort}`,
        directory,
      });
      program.child.kill("SIGTERM");
      expect(await program.ended).toMatchObject({ status: 0 });
    }
    for (const taken of [port, natsPort]) {
      await using _ = await listener(taken);
      const { status, stdout, stderr } = await devAt(args).ended;
      expect({ status, stdout }).toEqual({ status: 73, stdout: "" });
      expect(stderr).toContain(
        `the port ${taken} of 127.0.0.1 is in use by another program; set ${taken === port ? "--port" : "--nats-port"} ` +
          "to another port, or to 0 for a free one",
      );
    }
  });

  it("has the same ports at each start if it is given none, and others if these are taken, which it says", async () => {
    // Somebody else on this machine may have them.
    const usual = async (program: Program): Promise<[isUsual: boolean, isSaid: boolean][]> => {
      const urls = await announced(program);
      program.child.kill("SIGTERM");
      const { stderr } = await program.ended;
      return [
        [urls.databaseUrl.includes(":15432/"), stderr.includes("The port 15432 is in use: Postgres uses another one")],
        [urls.natsUrl.endsWith(":14222"), stderr.includes("The port 14222 is in use: nats-server uses another one")],
      ];
    };
    for (const [isUsual, isSaid] of await usual(devAt(["--json"]))) expect(isSaid).toBe(!isUsual);
    await using _postgres = await listener(15_432);
    await using _nats = await listener(14_222);
    expect(await usual(devAt(["--json"]))).toEqual([
      [false, true],
      [false, true],
    ]);
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

describe("hawser dev -- COMMAND", () => {
  /** A program of Node as the command; its servers are at any ports. */
  const running = (source: string, options: ProgramOptions = {}) =>
    dev(["--", process.execPath, "--input-type=module", "-e", source], options);

  it("runs it with the URLs of the stack in its environment, prints its output alone, and ends with it", async () => {
    const source = `
      import pg from "pg";
      const client = new pg.Client();
      await client.connect();
      const { rows } = await client.query("SELECT count(*)::int AS count FROM pg_proc WHERE proname = 'nats_publish_text'");
      await client.end();
      const { HAWSER_DATABASE_URL: databaseUrl, HAWSER_SESSION_URL: sessionUrl, PGSERVICE: service, NATS_URL: natsUrl } = process.env;
      console.log(JSON.stringify({ databaseUrl, sessionUrl, service, natsUrl, count: rows[0].count, args: process.argv.slice(1) }));
      process.exitCode = 7;`;
    const program = dev(["--", process.execPath, "--input-type=module", "-e", source, "--", "--json"], {
      env: { HAWSER_SESSION_URL: "postgres://elsewhere/x", PGSERVICE: "elsewhere" },
    });
    const { status, stdout } = await program.ended;
    expect(status).toBe(7);
    const printed = JSON.parse(stdout) as Announcement & { readonly count: number; readonly args: readonly string[] };
    expect(printed).toMatchObject({ count: 1, args: ["--json"], natsUrl: expect.stringMatching("^nats://127.0.0.1:") });
    for (const name of ["sessionUrl", "service"]) expect(printed).not.toHaveProperty(name);
    expect(await anyAnswers(printed)).toBe(false);
  });

  it("passes a signal on to it, and ends when it has ended", async () => {
    const source = `
      process.on("SIGTERM", () => { console.log("told to stop"); process.exit(3); });
      setInterval(() => undefined, 1000);
      console.log("running");`;
    const program = running(source);
    expect(await program.firstLine).toBe("running");
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 3, stdout: "running\ntold to stop\n" });
  });

  it("ends with 128 and the number of the signal that has ended it", async () => {
    expect(await running('process.kill(process.pid, "SIGKILL")').ended).toMatchObject({ status: 137, stdout: "" });
  });

  it("ends it, and fails, when a server ends by itself", async () => {
    const directory = join(temporaryDirectory(), "data");
    const source = `
      process.on("SIGTERM", () => { console.log("told to stop"); process.exit(0); });
      setInterval(() => undefined, 1000);
      console.log("running");`;
    const command = [process.execPath, "--input-type=module", "-e", source];
    const program = dev(["--directory", directory, "--", ...command]);
    expect(await program.firstLine).toBe("running");
    process.kill(postgresPid(directory), "SIGINT");
    const { status, stdout, stderr } = await program.ended;
    expect({ status, stdout }).toEqual({ status: 69, stdout: "running\ntold to stop\n" });
    expect(stderr).toContain("Postgres ended by itself");
  });

  it("leaves standard input to it", async () => {
    const program = running("process.stdin.pipe(process.stdout)");
    program.child.stdin!.end("20 m of rope");
    expect(await program.ended).toMatchObject({ status: 0, stdout: "20 m of rope" });
  });

  it("at a second signal kills a command that ignores the first one, and ends", async () => {
    const source = `
      process.on("SIGTERM", () => console.log("ignored"));
      setInterval(() => undefined, 1000);
      console.log("running");`;
    const program = running(source);
    expect(await program.firstLine).toBe("running");
    // Two signals at nearly the same time count as one.
    const impatience = setInterval(() => program.child.kill("SIGTERM"), 400);
    onTestFinished(() => clearInterval(impatience));
    expect(await program.ended).toMatchObject({ status: 137, stdout: expect.stringMatching("^running\nignored\n") });
  });

  it("told to stop before the command runs, ends with 128 and the number of the signal", async () => {
    const temporary = temporaryDirectory();
    const program = running('console.log("ran")', { env: { TMPDIR: temporary } });
    await eventually("it is starting", () => readdirSync(temporary).some((name) => name.startsWith("hawser-dev-")));
    program.child.kill("SIGTERM");
    expect(await program.ended).toMatchObject({ status: 143, stdout: "" });
    expect(readdirSync(temporary).filter((name) => name.startsWith("hawser-dev-"))).toEqual([]);
  });

  it.each(["no-such-program", "", `${process.execPath}/x`])(
    'refuses a program that is not there, "%s"',
    async (name) => {
      const { status, stderr } = await dev(["--", name]).ended;
      expect(status).toBe(64);
      expect(stderr).toContain(`cannot run "${name}": `);
      expect(stderr).toContain("name a program that is on the PATH");
    },
  );
});
