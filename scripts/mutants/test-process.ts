/**
 * Process that runs tests on one mutant after the other. All mutants share one instance of vitest, so that a mutant
 * costs no more than its tests. Orders and answers go over the IPC channel of `fork`.
 *
 * A mutant is never written to a file: vitest loads its text instead of the file's.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createVitest } from "vitest/node";
import { startNatsServer } from "../../test/support/nats-server.js";
import { type Mutant, mutated } from "./make-mutants.js";

/** Order to run tests. `mutant` is null to run them on the unchanged code. */
export interface Order {
  readonly mutant: Mutant | null;
  /** Prefixes of the paths of the tests to run. */
  readonly paths: readonly string[];
}

/** Result of an order. */
export interface Answer {
  /** True if all tests passed, so that a mutant was not detected. */
  readonly passed: boolean;
  /** First test that failed. */
  readonly failed: string | undefined;
  readonly tests: number;
}

const root = fileURLToPath(new URL("../..", import.meta.url));

let active: Mutant | null = null;

const mutation = {
  name: "hawser-mutant",
  enforce: "pre" as const,
  load(id: string): string | undefined {
    if (active === null || id !== join(root, active.file)) return undefined;
    return mutated(readFileSync(id, "utf8"), active);
  },
};

const vitest = await createVitest(
  "test",
  {
    root,
    config: false,
    watch: false,
    bail: 1,
    isolate: false,
    maxWorkers: 1,
    reporters: [{}],
    include: ["test/**/*.test.ts"],
    exclude: ["test/**/*.slow.test.ts", "test/**/*.nightly.test.ts"],
    globalSetup: [join(root, "test/global-setup.ts")],
    env: { HAWSER_TEST_DEPTH: "0.1" },
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
  { plugins: [mutation], logLevel: "silent" },
);

async function run({ mutant, paths }: Order): Promise<Answer> {
  const files = new Set([active?.file, mutant?.file]);
  active = mutant;
  for (const file of files) if (file !== undefined) vitest.invalidateFile(join(root, file));
  // Each run has a new server: on a shared one, it would find the buckets and streams of the previous run.
  await using nats = await startNatsServer({ jetStream: true });
  process.env["HAWSER_TEST_NATS_URL"] = nats.url;
  const specifications = await vitest.globTestSpecifications([...paths]);
  const { testModules: known, unhandledErrors } = await vitest.runTestSpecifications(specifications);
  // The state of vitest also contains the modules of earlier orders.
  const asked = new Set(specifications.map(({ moduleId }) => moduleId));
  const testModules = known.filter(({ moduleId }) => asked.has(moduleId));
  const tests = testModules.flatMap((module) => [...module.children.allTests()]);
  const failed = tests.find((test) => test.result().state === "failed");
  const broken = testModules.find((module) => !module.ok());
  const passed = failed === undefined && broken === undefined && unhandledErrors.length === 0;
  const first = failed?.fullName ?? broken?.relativeModuleId ?? (unhandledErrors[0] as Error | undefined)?.message;
  vitest.state.clearErrors();
  return { passed, failed: first, tests: tests.length };
}

process.on("message", (order: Order) => {
  run(order).then(
    (answer) => process.send!(answer),
    (error: Error) => process.send!({ passed: false, failed: error.message, tests: 0 } satisfies Answer),
  );
});
// Closed gracefully, because vitest has directories and databases to remove.
process.on("disconnect", () => void vitest.close().finally(() => process.exit()));
process.send!("ready");
