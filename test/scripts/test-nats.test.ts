import { expect, it } from "vitest";
import { startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

it.each([["2.8"], ["2.10.x"], ["3.0"], []])("test:nats refuses %s and says what it takes", async (...args) => {
  const { status, stderr } = await startProgram("scripts/test-nats.ts", args).ended;
  expect(status).toBe(64);
  expect(stderr).toContain("Usage: npm run test:nats -- 2.9|2.10|2.11|…|2.9.25|…");
});

it("test:nats says what to do where there is no Go", async () => {
  const env = { PATH: temporaryDirectory(), HAWSER_CACHE_DIR: temporaryDirectory() };
  const { status, stderr } = await startProgram("scripts/test-nats.ts", ["2.9"], { env }).ended;
  expect(status).toBe(1);
  expect(stderr).toContain("nats-server 2.9 could not be built: no Go toolchain is on PATH\nIt takes Go and a");
});
