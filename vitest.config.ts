import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    // Real servers and real processes: slow machines are slow, hanging is what the limit is for.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Tests mostly wait for servers and disks, so that more than one file for each core pays; many more would slow down
    // those that have deadlines.
    maxWorkers: Math.ceil(availableParallelism() * 1.5),
  },
});
