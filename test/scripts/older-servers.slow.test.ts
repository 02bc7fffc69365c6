import { expect, it } from "vitest";
import { startProgram } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

it.each([
  ["scripts/test-nats.ts", ["2.10.x"]],
  ["scripts/test-nats.ts", ["3.0"]],
  ["scripts/test-nats.ts", []],
  ["scripts/test-postgres.ts", ["eighteen"]],
  ["scripts/test-postgres.ts", []],
])("%s refuses %j and says what it takes", async (script, args) => {
  const { status, stderr } = await startProgram(script, args).ended;
  expect(status).toBe(64);
  expect(stderr).toContain(`Usage: npm run test:${script.includes("nats") ? "nats -- 2.9|" : "postgres -- 14|"}`);
});

it("test:nats says what to do where there is no Go", async () => {
  const env = { PATH: temporaryDirectory(), HAWSER_CACHE_DIR: temporaryDirectory() };
  const { status, stderr } = await startProgram("scripts/test-nats.ts", ["2.9"], { env }).ended;
  expect(status).toBe(1);
  expect(stderr).toContain("nats-server 2.9 could not be built: no Go toolchain is on PATH\nIt requires Go and an");
});
