/**
 * Runs of the real vitest and node:test, each with servers of its own: that all files share these, and what is left of them.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { runners, sampleProject, startIn } from "./sample-project.js";

/** Note of a test file of the sample. */
interface Note {
  readonly server: string;
  readonly database: string;
  readonly nats: string;
  readonly others: number;
  /** Errors of Postgres for clients without the password. */
  readonly strangers: readonly string[];
}

const fileNames = ["one", "two", "three"];

/** Part that all files have, independent of the runner. */
const common = `
import { appendFileSync } from "node:fs";
import { connect } from "@nats-io/transport-node";
import { testStack } from "hawser/testing";
import pg from "pg";

export async function look(file) {
  const stack = await testStack({
    migrations: {
      files: "common.js",
      run: () => appendFileSync("migrated", "once\\n"),
    },
  });
  const pool = new pg.Pool({ connectionString: stack.databaseUrl });
  const { rows } = await pool.query("SELECT pg_postmaster_start_time()::text AS server, current_database() AS database");
  await pool.end();
  const strangers = [];
  for (const password of ["wrong", "postgres"]) {
    const url = Object.assign(new URL(stack.databaseUrl), { password });
    const stranger = new pg.Client({ connectionString: url.href, password: () => password });
    await stranger.connect().then(() => strangers.push("welcome"), (error) => strangers.push(error.code ?? error.message));
    await stranger.end().catch(() => undefined);
  }
  const nats = await connect({ servers: stack.natsUrl });
  let others = 0;
  nats.subscribe("shared", { callback: () => others++ });
  await nats.flush();
  nats.publish("shared", file);
  await nats.flush();
  appendFileSync("notes", JSON.stringify({ ...rows[0], nats: nats.info.server_id, others, strangers }) + "\\n");
  await nats.close();
  return stack;
}
`;

const ofVitest = (file: string): string => `
import { afterAll, it } from "vitest";
import { look } from "./common.js";

let stack;
afterAll(() => stack.drop());
it("looks", async () => { stack = await look(${JSON.stringify(file)}); }, 60_000);
`;

const ofNode = (file: string): string => `
import { after, test } from "node:test";
import { look } from "./common.js";

let stack;
after(() => stack.drop());
test("looks", async () => { stack = await look(${JSON.stringify(file)}); });
`;

function filesFor(make: (file: string) => string): Record<string, string> {
  return Object.fromEntries(fileNames.map((name) => [`${name}.test.js`, make(name)]));
}

const config = (test: object): Record<string, string> => ({
  "vitest.config.js": `export default { test: ${JSON.stringify(test)} };`,
});

/** A directory for all that a run keeps on the disk. */
function ownTemporary(): {
  readonly env: Record<string, string | undefined> & { readonly TMPDIR: string };
  readonly left: () => string[];
} {
  const directory = join(temporaryDirectory(), "tmp");
  mkdirSync(directory, { mode: 0o777 });
  const env = { TMPDIR: directory, HAWSER_DATABASE_URL: undefined, HAWSER_NATS_URL: undefined };
  /** Files of the run, and processes that its directories are named to. */
  const left = (): string[] => {
    const own = `hawser-testing-${process.getuid?.()}`;
    const stacks = readdirSync(directory).filter((file) => file.startsWith("hawser-") && file !== own);
    return [...stacks, ...readdirSync(join(directory, own)), ...processesNaming(directory)];
  };
  return { env, left };
}

function processesNaming(text: string): string[] {
  return readdirSync("/proc")
    .map(commandLineOf)
    .filter((line) => line.includes(text));
}

/** Empty for what is no process, or not any more. */
function commandLineOf(pid: string): string {
  if (!/^\d+$/.test(pid)) return "";
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

const linux = process.platform === "linux";

describe.runIf(linux)("the files of a run", () => {
  it.each([
    { name: "vitest, forks", command: runners.vitest, make: ofVitest, test: { pool: "forks", maxWorkers: 3 } },
    { name: "vitest, threads", command: runners.vitest, make: ofVitest, test: { pool: "threads", maxWorkers: 3 } },
    {
      name: "vitest with the global set-up",
      command: runners.vitest,
      make: ofVitest,
      test: { maxWorkers: 3, globalSetup: "hawser/testing" },
    },
    { name: "node:test", command: [...runners.node, ...fileNames.map((name) => `${name}.test.js`)], make: ofNode },
  ])("share the servers and one set of migrations, and leave nothing: $name", async ({ command, make, test }) => {
    const project = sampleProject({ ...filesFor(make), ...config(test ?? {}), "common.js": common });
    const { env, left } = ownTemporary();
    const { status, stdout, stderr } = await startIn(project, command, env).ended;
    const atOnce = left();
    expect(status, `${stdout}${stderr}`).toBe(0);
    const notes = readFileSync(join(project, "notes"), "utf8").trim().split("\n");
    const found = notes.map((line) => JSON.parse(line) as Note);
    expect(found).toHaveLength(fileNames.length);
    expect(new Set(found.map(({ server }) => server)).size).toBe(1);
    expect(new Set(found.map(({ nats }) => nats)).size).toBe(1);
    expect(new Set(found.map(({ database }) => database)).size).toBe(fileNames.length);
    expect(found.map(({ strangers }) => strangers)).toEqual(fileNames.map(() => ["28P01", "28P01"]));
    // Each hears of its own message alone.
    expect(found.map(({ others }) => others)).toEqual(fileNames.map(() => 1));
    expect(readFileSync(join(project, "migrated"), "utf8")).toBe("once\n");
    // The keeper closes its connections a moment before its process has gone.
    const isKeeper = (each: string): boolean => each.includes("testing/keeper.js");
    if (test !== undefined && "globalSetup" in test) expect(atOnce.filter((each) => !isKeeper(each))).toEqual([]);
    await eventually(`nothing is left: ${atOnce}`, () => left().length === 0);
  });
});

describe.runIf(linux)("when", () => {
  const hanging = `
import { writeFileSync } from "node:fs";
import { testStack } from "hawser/testing";

export async function hang() {
  const stack = await testStack();
  const program = await stack.start("sleep", ["1000"]);
  writeFileSync("hangs", String(program.pid));
  await new Promise(() => setInterval(() => undefined, 1000));
}
`;
  const hangingTests = {
    vitest: `import { it } from "vitest";\nimport { hang } from "./hanging.js";\nit("hangs", hang, 600_000);`,
    node: `import { test } from "node:test";\nimport { hang } from "./hanging.js";\ntest("hangs", hang);`,
  };

  it.each(["vitest", "node"] as const)("the runner is killed, everything of the run ends: %s", async (runner) => {
    const project = sampleProject({ "hanging.js": hanging, "one.test.js": hangingTests[runner] });
    const { env, left } = ownTemporary();
    const command = runner === "vitest" ? runners.vitest : [...runners.node, "one.test.js"];
    const program = startIn(project, command, env);
    const mark = join(project, "hangs");
    await eventually("the test hangs", () => existsSync(mark) && readFileSync(mark, "utf8") !== "");
    expect(left()).not.toEqual([]);
    // node:test leaves it to its children to notice.
    process.kill(-program.pid, "SIGKILL");
    await program.ended;
    await eventually("nothing is left", () => left().length === 0);
    const pid = Number(readFileSync(mark, "utf8"));
    await eventually("the program of the test has ended", () => !existsSync(`/proc/${pid}/cwd`));
  });

  it("the runner alone is killed, what a process has started that goes on ends", async () => {
    const project = sampleProject({ "hanging.js": hanging, "one.js": 'await (await import("./hanging.js")).hang();' });
    const { env, left } = ownTemporary();
    const runner = startCommand("sleep", ["1000"]);
    const program = startIn(project, ["one.js"], { ...env, HAWSER_TEST_RUN: String(runner.pid) });
    const mark = join(project, "hangs");
    await eventually("it hangs", () => existsSync(mark) && readFileSync(mark, "utf8") !== "");
    process.kill(runner.pid, "SIGKILL");
    await runner.ended;
    const pid = Number(readFileSync(mark, "utf8"));
    await eventually("what it has started has ended", () => !existsSync(`/proc/${pid}/cwd`));
    await eventually("nothing is left", () => left().length === 0);
    process.kill(-program.pid, "SIGKILL");
    await program.ended;
  });

  it("the keeper is killed, its servers end, and tests say so", async () => {
    const asking = `
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { eventually, testStack } from "hawser/testing";

test("asks until there is an error", async () => {
  await testStack();
  writeFileSync("asks", "yes");
  const failure = () => testStack().then((stack) => stack.drop().then(() => false), (error) => error);
  writeFileSync("first", (await eventually(failure, { withinMs: 60_000 })).message);
  // While the kernel takes the keeper apart, its socket may still take a connection that ends at once.
  const next = () => failure().then(({ message }) => message.includes("does not answer at") && message);
  writeFileSync("next", await eventually(next, { withinMs: 60_000 }));
});
`;
    const project = sampleProject({ "asking.test.js": asking });
    const { env, left } = ownTemporary();
    const program = startIn(project, [...runners.node, "asking.test.js"], env);
    await eventually("the test asks", () => existsSync(join(project, "asks")));
    const isKeeper = (pid: string): boolean => commandLineOf(pid).includes(`testing/keeper.js ${env.TMPDIR}`);
    process.kill(Number(readdirSync("/proc").find(isKeeper)), "SIGKILL");
    const { status, stdout } = await program.ended;
    expect(status, stdout).toBe(0);
    expect(readFileSync(join(project, "first"), "utf8")).toContain(
      "The process that keeps the servers of this run has ended",
    );
    expect(readFileSync(join(project, "next"), "utf8")).toContain("does not answer at");
    // Its socket and log go with the next run's.
    await eventually("no server is left", () => !left().some((each) => !/^\d+-\w+\.(sock|log)$/.test(each)));
  });

  it("a test process is killed, what it had goes, and the others go on", async () => {
    const killed = `
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { testStack } from "hawser/testing";

test("is killed", async () => {
  const { id } = await testStack();
  writeFileSync("victim", id);
  process.kill(process.pid, "SIGKILL");
});
`;
    const looking = `
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { eventually, testStack } from "hawser/testing";
import pg from "pg";

const stack = await testStack();
const pool = new pg.Pool({ connectionString: stack.databaseUrl });
after(async () => { await pool.end(); await stack.drop(); });
const has = async (id) => (await pool.query("SELECT FROM pg_database WHERE datname = $1", [id])).rowCount === 1;

test("sees the database go", async () => {
  const withinMs = 60_000;
  await eventually(() => existsSync("victim") && readFileSync("victim", "utf8") !== "", { withinMs });
  const id = readFileSync("victim", "utf8");
  await eventually(async () => !(await has(id)), { withinMs });
  writeFileSync("gone", id);
});
`;
    const project = sampleProject({ "killed.test.js": killed, "looking.test.js": looking });
    const { env, left } = ownTemporary();
    const command = [...runners.node, "--test-concurrency=2", "killed.test.js", "looking.test.js"];
    const { status, stdout } = await startIn(project, command, env).ended;
    expect(stdout).toMatch(/^. pass 1$/m);
    expect(status).toBe(1);
    expect(readFileSync(join(project, "gone"), "utf8")).toBe(readFileSync(join(project, "victim"), "utf8"));
    await eventually("nothing is left", () => left().length === 0);
  });
});
