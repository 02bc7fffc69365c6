import { expect, it } from "vitest";
import { startProgram } from "../support/program.js";

it.each([
  ["nats", "2.8", "2.9|2.10|2.11|…|2.9.25|…"],
  ["nats-js", "2.9.0", "3.3.0|3.3.1|…"],
  ["postgres", "13", "14|15|16|17|18"],
])("npm run test:%s refuses version %s and says which it takes", async (name, wrong, versions) => {
  const { status, stderr } = await startProgram(`scripts/test-${name}.ts`, [wrong]).ended;
  expect(status).toBe(64);
  expect(stderr).toContain(`Usage: npm run test:${name} -- ${versions}`);
});
