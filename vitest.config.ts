import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/global-setup.ts"],
    // Real servers and real processes: a busy machine takes up to twenty times as long as an idle one; hanging is what the
    // limit is for.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Tests mostly wait for servers and disks, so that more than one file for each core pays; many more would slow down
    // those that have deadlines.
    maxWorkers: Math.ceil(availableParallelism() * 1.5),
  },
});
