import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    // Real servers and real processes: slow machines are slow, hanging is what the limit is for.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Tests mostly wait for servers, so that a little more than one file for each core (CI has two) pays; many more
    // would make the tests that measure time fail.
    maxWorkers: 3,
  },
});
