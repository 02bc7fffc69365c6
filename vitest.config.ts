import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Some slow files take minutes: begun last, they would keep one core busy long after all others are done. */
class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isSlow = ({ project }: TestSpecification) => project.name === "slow";
    return [...sorted.filter(isSlow), ...sorted.filter((file) => !isSlow(file))];
  }
}

/**
 * Tests that have the machine to themselves. A NATS cluster on a machine that has much else to do loses what the time limits for
 * one do not allow for; Connect's conformance suite has time limits of its own; the test of the chart builds helm where there is
 * none, which occupies all cores for minutes; the last compares waits with those of a control that comes before.
 */
const alone = [
  "test/faults/nats-cluster.slow.test.ts",
  "test/connect/conformance.slow.test.ts",
  "test/deploy/chart.slow.test.ts",
  "test/faults/hostile-roles.slow.test.ts",
];

/** Files of the fast tier with slow tests: see `test/support/slow-it.ts`. */
const withSlowTests = readdirSync("test", { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".test.ts"))
  .map((path) => `test/${path}`)
  .filter((path) => readFileSync(path, "utf8").includes("support/slow-it.js"));

/** Seed of the order of files and of tests within a file, as `npm run test:repeat` sets it. Unset: no test is out of its order. */
const seed = process.env["HAWSER_TEST_SEED"];

/** What `test/support/depth.ts` multiplies counts of random inputs with; the environment's own goes first. */
const depth = (mode: string) => ({
  HAWSER_TEST_DEPTH: process.env["HAWSER_TEST_DEPTH"] ?? (mode === "all" ? "1" : "0.05"),
});

/**
 * `npm test` runs the project `fast`, `npm run test:slow` the projects `slow` and `alone`, `npm run test:nightly` the project
 * `nightly`, `npm run test:all` all of them; all but the first with all random inputs.
 */
export default defineConfig(({ mode }) => {
  const project = {
    // A worker keeps the modules it has loaded for its next file: loading them takes longer than most files.
    isolate: false,
    env: depth(mode),
    // Real servers and real processes: a busy machine takes up to twenty times as long as an idle one; hanging is what
    // the limits are for.
    testTimeout: 180_000,
    hookTimeout: 180_000,
  };
  return {
    test: {
      globalSetup: ["test/global-setup.ts"],
      reporters: ["default", "./test/support/progress-reporter.ts"],
      // Only what is far slower than the others is worth a line of its own.
      slowTestThreshold: 5_000,
      sequence: seed === undefined ? { sequencer: SlowFirst } : { shuffle: true, seed: Number(seed) },
      // Tests mostly wait for servers and disks, so that more than one file for each core pays; many more would slow
      // down those that have deadlines.
      maxWorkers: availableParallelism() * 2,
      projects: [
        {
          test: {
            ...project,
            name: "fast",
            env: { ...depth(mode), HAWSER_TEST_TIER: "fast", HAWSER_TEST_PATIENCE_MS: "25000" },
            testTimeout: 30_000,
            hookTimeout: 60_000,
            include: ["test/**/*.test.ts"],
            exclude: ["test/**/*.slow.test.ts", "test/**/*.nightly.test.ts"],
          },
        },
        { test: { ...project, name: "nightly", include: ["test/**/*.nightly.test.ts"] } },
        {
          test: { ...project, name: "slow", include: ["test/**/*.slow.test.ts", ...withSlowTests], exclude: alone },
        },
        // Behind the others.
        { test: { ...project, name: "alone", include: alone, maxWorkers: 1, sequence: { groupOrder: 1 } } },
      ],
    },
  };
});
