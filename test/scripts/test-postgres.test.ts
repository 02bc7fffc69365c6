import { expect, it } from "vitest";
import { startProgram } from "../support/program.js";

it.each([["13"], ["eighteen"], []])("test:postgres refuses %s and names the versions it knows", async (...args) => {
  const { status, stderr } = await startProgram("scripts/test-postgres.ts", args).ended;
  expect(status).toBe(64);
  expect(stderr).toContain("Usage: npm run test:postgres -- 14|15|16|17|18");
});
