/**
 * Prints the tests of the files that are its arguments, as JSON: { file: [full title, …] }. It loads the files and runs
 * nothing, so that titles which are made at run time are there, too.
 */
import { relative } from "node:path";
import { createVitest } from "vitest/node";

// Without the project's configuration: its global set-up starts servers.
const vitest = await createVitest("test", {
  config: false,
  watch: false,
  isolate: false,
  include: ["test/**/*.test.ts"],
});
const { testModules, unhandledErrors } = await vitest.collect(process.argv.slice(2));
const errors = [...unhandledErrors, ...testModules.flatMap((module) => module.errors())];
const tests: Record<string, string[]> = {};
for (const module of testModules) {
  tests[relative(process.cwd(), module.moduleId)] = [...module.children.allTests()].map(({ fullName }) => fullName);
}
await vitest.close();
if (errors.length > 0) throw new AggregateError(errors, "Some test files could not be loaded");
process.stdout.write(JSON.stringify(tests));
