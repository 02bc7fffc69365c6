/**
 * `npm run test:repeat -- COUNT [--busy N]`: the test suite again and again, each time in another order and in turn in
 * other surroundings, to find tests whose outcome depends on either.
 */
import { execFileSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { project, suiteStatus } from "./suite/run-suite.js";

const usage = `Usage: npm run test:repeat -- COUNT [--busy N] [--slow] [--seed S] [--results FILE] [-- vitest's arguments]

  COUNT           how many runs there are in all, those that FILE already has included
  --busy N        loops that burn CPU beside the tests. Default 0
  --slow          the tests of npm run test:slow instead of those of npm test
  --seed S        seed of the order of files and tests, for all runs. Default: another one for each
  --results FILE  each run adds a line to it. What it has of this commit with these arguments is not run again.
                  Default node_modules/.cache/test-repeat.jsonl`;

/** Surroundings by turns: every second run is in another time zone and locale, every fourth pair on other collations. */
const surroundings: readonly Readonly<Record<string, string>>[] = [undefined, "tr", undefined, "en-US"].flatMap(
  (icu) => {
    const collation: Record<string, string> = icu === undefined ? {} : { HAWSER_TEST_ICU_LOCALE: icu };
    // Its offset is 10:30 or 11:00: half an hour in summer.
    return [collation, { ...collation, TZ: "Australia/Lord_Howe", LANG: "C.utf8" }];
  },
);

/** Line of the file of results. */
interface Run {
  /** Commit and arguments: runs of others do not count. */
  readonly what: string;
  readonly number: number;
  readonly seed: number;
  readonly surroundings: Readonly<Record<string, string>>;
  readonly startedAt: string;
  readonly seconds: number;
  /** Exit status of vitest: it is not 0 either for an error outside of tests. */
  readonly status: number;
  readonly passed: number;
  readonly failed: readonly string[];
}

interface Settings {
  readonly count: number;
  readonly busy: number;
  readonly slow: boolean;
  readonly seed: number | undefined;
  readonly results: string;
  readonly vitestArgs: readonly string[];
}

/** @throws Error that names the valid values */
function readSettings(): Settings | "help" {
  const { values, positionals, tokens } = parseArgs({
    options: {
      busy: { type: "string", default: "0" },
      slow: { type: "boolean", default: false },
      seed: { type: "string" },
      results: { type: "string", default: join(project, "node_modules/.cache/test-repeat.jsonl") },
      help: { type: "boolean", short: "h", default: false },
    },
    allowPositionals: true,
    tokens: true,
  });
  if (values.help) return "help";
  const whole = (name: string, text: string, least: number): number => {
    if (/^\d{1,9}$/.test(text) && Number(text) >= least) return Number(text);
    throw new Error(`${name} is "${text}"; it must be an integer of at least ${least}.`);
  };
  const terminator = tokens.find(({ kind }) => kind === "option-terminator")?.index ?? Number.POSITIVE_INFINITY;
  const own = tokens.filter(({ kind, index }) => kind === "positional" && index < terminator).length;
  if (own !== 1)
    throw new Error(`There must be one COUNT; there are ${own} arguments. Those of vitest stand behind --.`);
  return {
    count: whole("COUNT", positionals[0]!, 1),
    busy: whole("--busy", values.busy, 0),
    slow: values.slow,
    seed: values.seed === undefined ? undefined : whole("--seed", values.seed, 0),
    results: resolve(values.results),
    vitestArgs: positionals.slice(1),
  };
}

/** Commit, or commit and changes, of the project. */
function commit(): string {
  return execFileSync("git", ["describe", "--always", "--abbrev=12", "--dirty=+changes"], {
    cwd: project,
    encoding: "utf8",
  }).trim();
}

function runsIn(file: string, what: string): Run[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line) as Run).filter((run) => run.what === what);
}

function lineOf({ number, seed, surroundings: env, seconds, passed, failed, status }: Run): string {
  const where = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const how = status === 0 ? "" : `, exit status ${status}`;
  const failures = failed.map((name) => `\n    ${name}`).join("");
  return `run ${number}: seed ${seed}, ${seconds} s, ${passed} passed, ${failed.length} failed${how} ${where.join(" ")}${failures}`;
}

/** Runs the suite once. @returns the signal that ended it, if any */
async function once(settings: Settings, what: string, number: number): Promise<Run | NodeJS.Signals> {
  const seed = settings.seed ?? randomInt(1_000_000_000);
  const env = surroundings[(number - 1) % surroundings.length]!;
  const directory = mkdtempSync(join(tmpdir(), "hawser-repeat-"));
  const report = join(directory, "report.json");
  console.error(
    `\nRun ${number} of ${settings.count}: HAWSER_TEST_SEED=${seed} ${JSON.stringify(env)}, ${settings.busy} busy loops`,
  );
  const projects = settings.slow ? ["--mode", "all", "--project", "slow", "--project", "alone"] : ["--project", "fast"];
  const reporters = ["--reporter=default", "--reporter=./test/support/progress-reporter.ts", "--reporter=json"];
  const startedAt = new Date();
  const loops = Array.from({ length: settings.busy }, () => new Worker("for (;;);", { eval: true }));
  try {
    const { status, interrupted } = await suiteStatus(
      [...projects, ...reporters, `--outputFile.json=${report}`, ...settings.vitestArgs],
      { ...env, HAWSER_TEST_SEED: `${seed}` },
    );
    if (interrupted !== undefined) return interrupted;
    const seconds = Math.round((Date.now() - startedAt.getTime()) / 1_000);
    return {
      what,
      number,
      seed,
      surroundings: env,
      startedAt: startedAt.toISOString(),
      seconds,
      status,
      ...readReport(report),
    };
  } finally {
    for (const loop of loops) await loop.terminate();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Reads vitest's report; without one, nothing has run. */
function readReport(file: string): Pick<Run, "passed" | "failed"> {
  if (!existsSync(file)) return { passed: 0, failed: [] };
  const { numPassedTests, testResults } = JSON.parse(readFileSync(file, "utf8")) as {
    readonly numPassedTests: number;
    readonly testResults: readonly {
      readonly name: string;
      readonly status: string;
      readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
    }[];
  };
  const failed = testResults.flatMap(({ name, status, assertionResults }) => {
    const tests = assertionResults.filter((test) => test.status === "failed").map(({ fullName }) => fullName);
    const path = name.replace(project, "");
    return status === "failed" && tests.length === 0 ? [path] : tests.map((test) => `${path}: ${test}`);
  });
  return { passed: numPassedTests, failed };
}

async function main(settings: Settings): Promise<void> {
  const { count, busy, slow, seed, results, vitestArgs } = settings;
  const what = [
    commit(),
    `busy ${busy}`,
    slow ? "slow" : "fast",
    seed === undefined ? "" : `seed ${seed}`,
    ...vitestArgs,
  ]
    .filter(Boolean)
    .join(" ");
  mkdirSync(dirname(results), { recursive: true });
  const runs = runsIn(results, what);
  if (runs.length > 0) console.error(`${results} has ${runs.length} runs of ${what}`);
  while (runs.length < count) {
    const run = await once(settings, what, runs.length + 1);
    if (typeof run === "string") {
      console.error(`Stopped. The same command goes on behind run ${runs.length}.`);
      process.exitCode = 128 + constants.signals[run];
      break;
    }
    appendFileSync(results, `${JSON.stringify(run)}\n`);
    runs.push(run);
  }
  console.log(`\n${what}\n${runs.map(lineOf).join("\n")}`);
  const bad = runs.filter(({ status }) => status !== 0).length;
  console.log(bad === 0 ? `All ${runs.length} runs passed.` : `${bad} of ${runs.length} runs failed.`);
  if (bad > 0) process.exitCode = 1;
}

let settings: Settings | "help";
try {
  settings = readSettings();
} catch (error) {
  console.error(`${(error as Error).message}\n${usage}`);
  process.exit(64);
}
if (settings === "help") console.log(usage);
else await main(settings);
