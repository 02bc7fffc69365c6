/**
 * Says at the start how long the same tests took last time, and while they run how far they are.
 *
 * The times are kept in `node_modules/.cache/hawser-tests.json`, one for each set of test files.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Reporter, TestModule, TestRunEndReason, TestSpecification } from "vitest/node";

const cacheFile = fileURLToPath(new URL("../../node_modules/.cache/hawser-tests.json", import.meta.url));

/** Interval of the progress lines. */
const intervalMs = 15_000;

/** Seconds by what ran. */
type Times = Record<string, number>;

export default class ProgressReporter implements Reporter {
  #startedAt = 0;
  #files = 0;
  #done = 0;
  #what = "";
  #lastSeconds: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  onTestRunStart(specifications: readonly TestSpecification[]): void {
    this.#startedAt = performance.now();
    this.#files = specifications.length;
    this.#done = 0;
    this.#what = nameOf(specifications);
    this.#lastSeconds = readTimes()[this.#what];
    const expected =
      this.#lastSeconds === undefined
        ? "how long these take is not known here yet. On two cores all of `npm test` takes some 3 minutes, all of `npm run test:slow` some 18"
        : `last time they took ${spoken(this.#lastSeconds)}`;
    say(`${this.#files} test files on ${availableParallelism()} cores; ${expected}.`);
    this.#timer = setInterval(() => this.#sayHowFar(), intervalMs).unref();
  }

  onTestModuleEnd(): void {
    this.#done += 1;
  }

  onTestRunEnd(_modules: readonly TestModule[], _errors: readonly unknown[], reason: TestRunEndReason): void {
    clearInterval(this.#timer);
    if (reason !== "passed") return;
    mkdirSync(dirname(cacheFile), { recursive: true });
    writeFileSync(cacheFile, `${JSON.stringify({ ...readTimes(), [this.#what]: this.#seconds() }, null, 2)}\n`);
  }

  #sayHowFar(): void {
    const last = this.#lastSeconds === undefined ? "" : ` of some ${spoken(this.#lastSeconds)}`;
    say(`${this.#done} of ${this.#files} test files after ${spoken(this.#seconds())}${last}`);
  }

  #seconds(): number {
    return Math.round((performance.now() - this.#startedAt) / 1000);
  }
}

/** The same files, with as many random inputs, have the same name, in whatever order. */
function nameOf(specifications: readonly TestSpecification[]): string {
  const files = specifications
    .map(({ moduleId, project }) => `${project.config.env["HAWSER_TEST_DEPTH"]} ${moduleId}`)
    .sort();
  return createHash("sha256").update(files.join("\n")).digest("hex").slice(0, 16);
}

function readTimes(): Times {
  try {
    return JSON.parse(readFileSync(cacheFile, "utf8")) as Times;
  } catch {
    return {};
  }
}

function spoken(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}
