/**
 * `npm run test:mutants`: puts small mistakes into the code, one at a time, and counts how many of them the tests of
 * `npm test` detect.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startDevStack } from "../src/development/dev/index.js";
import { type Mutant, makeMutants } from "./mutants/make-mutants.js";
import { type Part, parts } from "./mutants/parts.js";
import type { Answer, Order } from "./mutants/test-process.js";

const usage = `Usage: npm run test:mutants -- [--sample N] [--seed S] [--part FOLDER] [--jobs N] [--json FILE]

  --sample N     how many mutants of each part are tried; 0: all. Default 60
  --seed S       seed of the choice of mutants. Default 1
  --part FOLDER  one part alone: ${parts.map(({ folder }) => folder).join(", ")}
  --jobs N       how many are tried side by side. Default 2
  --json FILE    writes each mutant with the test that noticed it`;

/** Time limit of the tests without a mutant. */
const unchangedDeadlineMs = 900_000;
/**
 * Time limit of the tests with a mutant, which may cause an endless loop: 10 s plus this factor times the duration of
 * the same tests without a mutant.
 */
const timeLimitFactor = 5;

/** Time in which a process must end gracefully. */
const stopMs = 10_000;

const root = fileURLToPath(new URL("..", import.meta.url));

/** Result of a mutant. */
interface Outcome extends Mutant {
  /** Test that detected it, or "the deadline"; null if none did. */
  readonly noticedBy: string | null;
}

/** Process that tests mutants; a new one replaces it if it hangs. */
class Tester {
  #child: Promise<ChildProcess> | undefined;

  /** Resolves with undefined if there is no answer within the deadline; a process that ends has not passed. */
  async run(order: Order, deadlineMs: number): Promise<Answer | undefined> {
    this.#child ??= start();
    const child = await this.#child;
    const waiting = new AbortController();
    const { signal } = waiting;
    child.send(order);
    try {
      return await Promise.race([
        once(child, "message", { signal }).then(([message]) => message as Answer),
        once(child, "exit", { signal }).then(([status, ended]): Answer => {
          this.#child = undefined;
          return { passed: false, failed: `the end of the process (${ended ?? `status ${status}`})`, tests: 0 };
        }),
        delay(deadlineMs, undefined, { signal }).then(() => this.stop()),
      ]);
    } finally {
      waiting.abort();
    }
  }

  /** Ends the process, gracefully if possible. */
  async stop(): Promise<undefined> {
    const child = await this.#child;
    this.#child = undefined;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    // A process that hangs does not react to the disconnect.
    if (child.connected) child.disconnect();
    const hung = setTimeout(killGroup, stopMs, child.pid);
    await ended;
    clearTimeout(hung);
  }
}

/** Kills a process with its workers. */
function killGroup(pid: number): void {
  process.kill(-pid, "SIGKILL");
}

async function start(): Promise<ChildProcess> {
  const child = fork(fileURLToPath(new URL("./mutants/test-process.ts", import.meta.url)), {
    execArgv: ["--import", "tsx"],
    stdio: ["ignore", "ignore", "ignore", "ipc"],
    // A process group of its own, so that all of its processes can be killed.
    detached: true,
  });
  const gone = once(child, "exit").then(([status]) => {
    throw new Error(`vitest could not be started (exit status ${status}); does \`npm test\` work?`);
  });
  await Promise.race([once(child, "message"), gone]);
  return child;
}

/** Tests by path prefix, with the deadline for a mutant. */
interface Ring {
  readonly paths: readonly string[];
  readonly deadlineMs: number;
}

/** Runs the tests without a mutant. @throws Error if they fail, because they would then detect every mutant */
async function measure(tester: Tester, { folder, rings }: Part): Promise<Ring[]> {
  const measured: Ring[] = [];
  for (const paths of rings) {
    const startedAt = performance.now();
    console.error(`Without a mutant: ${paths.join(", ")}`);
    const answer = await tester.run({ mutant: null, paths }, unchangedDeadlineMs);
    if (!answer?.passed) {
      throw new Error(`The tests of ${folder} do not pass without a mutant: ${answer?.failed ?? "no answer"}`);
    }
    const tookMs = performance.now() - startedAt;
    console.error(`${answer.tests} tests in ${(tookMs / 1000).toFixed(1)} s`);
    measured.push({ paths, deadlineMs: 10_000 + timeLimitFactor * tookMs });
  }
  return measured;
}

/** Tests one mutant: ring by ring, until a test detects it. */
async function tryMutant(tester: Tester, rings: readonly Ring[], mutant: Mutant): Promise<Outcome> {
  for (const { paths, deadlineMs } of rings) {
    const answer = await tester.run({ mutant, paths }, deadlineMs);
    if (answer === undefined) return { ...mutant, noticedBy: "the deadline" };
    if (!answer.passed) return { ...mutant, noticedBy: answer.failed ?? "a test" };
  }
  return { ...mutant, noticedBy: null };
}

function mutantsOf({ folder }: Part): Mutant[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .sort()
    .flatMap((file) => makeMutants(join(folder, file), readFileSync(join(root, folder, file), "utf8")));
}

/** Draws `count` items at random with the generator mulberry32: the same ones for the same seed. */
function sample<T>(all: readonly T[], count: number, seed: number): T[] {
  if (count === 0 || count >= all.length) return [...all];
  let state = seed;
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const rest = [...all];
  return Array.from({ length: count }, () => rest.splice(Math.floor(random() * rest.length), 1)[0]!);
}

interface Settings {
  readonly sample: number;
  readonly seed: number;
  readonly jobs: number;
  readonly parts: readonly Part[];
  readonly json: string | undefined;
}

/** @throws Error that names the valid values */
function readSettings(): Settings | "help" {
  const { values } = parseArgs({
    options: {
      sample: { type: "string", default: "60" },
      seed: { type: "string", default: "1" },
      jobs: { type: "string", default: "2" },
      part: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return "help";
  const whole = (name: "sample" | "seed" | "jobs", least: number): number => {
    const value = Number(values[name]);
    if (/^\d{1,9}$/.test(values[name]) && value >= least) return value;
    throw new Error(`--${name} is "${values[name]}"; it must be an integer of at least ${least}.`);
  };
  // Shells complete folders with a slash.
  const wanted = values.part?.replace(/\/$/, "");
  const chosen = wanted === undefined ? parts : parts.filter(({ folder }) => folder === wanted);
  if (chosen.length === 0) {
    throw new Error(
      `There is no part "${values.part}". The parts are ${parts.map(({ folder }) => folder).join(", ")}.`,
    );
  }
  return {
    sample: whole("sample", 0),
    seed: whole("seed", 0),
    jobs: whole("jobs", 1),
    parts: chosen,
    json: values.json,
  };
}

/** @throws Error if the tests fail without a mutant, or cannot be run */
async function main(settings: Settings): Promise<void> {
  const outcomes: Outcome[] = [];
  // The first call is before the tests, so that an unwritable file is detected at once.
  const save = (): void => {
    if (settings.json !== undefined) writeFileSync(settings.json, `${JSON.stringify(outcomes, null, 2)}\n`);
  };
  save();
  const stack = await startDevStack({ onProgress: (message) => console.error(message) });
  // The testers use this stack instead of starting one each.
  process.env["HAWSER_DATABASE_URL"] = stack.databaseUrl;
  process.env["HAWSER_NATS_URL"] = stack.natsUrl!;
  const testers = Array.from({ length: settings.jobs }, () => new Tester());
  const stop = async (): Promise<void> => {
    await Promise.all(testers.map((tester) => tester.stop()));
    await stack.stop();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void stop().then(() => process.exit(signal === "SIGINT" ? 130 : 143)));
  }
  const rows: string[] = [];
  try {
    for (const part of settings.parts) {
      const rings = await measure(testers[0]!, part);
      const all = mutantsOf(part);
      const chosen = sample(all, settings.sample, settings.seed);
      const noticed = await tryAll(testers, { part, rings }, chosen, outcomes);
      save();
      const share = ((100 * noticed) / chosen.length).toFixed(0);
      rows.push(
        `${part.folder.padEnd(22)} ${String(noticed).padStart(5)} of ${chosen.length} (${share} %); ${all.length} in all`,
      );
    }
  } finally {
    await stop();
  }
  const noticed = outcomes.filter(({ noticedBy }) => noticedBy !== null).length;
  console.log(`\nNoticed, with seed ${settings.seed}:\n${rows.join("\n")}`);
  console.log(`${noticed} of ${outcomes.length} mutants: ${((100 * noticed) / outcomes.length).toFixed(1)} %`);
}

/** Tests the mutants of a part, and prints the undetected ones. @returns the number of detected mutants */
async function tryAll(
  testers: readonly Tester[],
  { part, rings }: { readonly part: Part; readonly rings: readonly Ring[] },
  chosen: readonly Mutant[],
  outcomes: Outcome[],
): Promise<number> {
  const queue = [...chosen];
  let done = 0;
  let noticed = 0;
  await Promise.all(
    testers.map(async (tester) => {
      for (let mutant = queue.shift(); mutant !== undefined; mutant = queue.shift()) {
        const outcome = await tryMutant(tester, rings, mutant);
        outcomes.push(outcome);
        done += 1;
        if (outcome.noticedBy !== null) noticed += 1;
        else console.log(`not noticed: ${outcome.file}:${outcome.line}: ${outcome.what}`);
        if (done % 5 === 0) console.error(`${part.folder}: ${done} of ${chosen.length}, ${noticed} noticed`);
      }
    }),
  );
  return noticed;
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
