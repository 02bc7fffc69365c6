/**
 * The tests of `src/nats/connections` on the versions of nats.js that users may get: we use what its main entry exports, one method of
 * a connection's protocol, and two fields of a message.
 */
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { expect, it } from "vitest";
import { manifest } from "../package/pack.js";
import { startProgram } from "../support/program.js";

const library = "@nats-io/transport-node";
const range = manifest.dependencies[library]!;
const { version: ours } = createRequire(import.meta.url)(`${library}/package.json`) as { version: string };

/** The versions of the range, from the oldest to the newest. */
function versions(): string[] {
  const found: unknown = JSON.parse(
    execFileSync("npm", ["view", `${library}@${range}`, "version", "--json"], { encoding: "utf8" }),
  );
  return [found].flat() as string[];
}

it("pass on the oldest and the newest version in range", async () => {
  const inRange = versions();
  expect(inRange).toContain(ours);
  const ends = new Set([inRange.at(0)!, inRange.at(-1)!]);
  expect(ends.size, `versions in ${range}`).toBe(2);
  // All other tests run on this one.
  ends.delete(ours);
  for (const version of ends) {
    const args = [version, "--project", "fast", "test/nats", "test/connect/nats.test.ts"];
    const { status, stdout, stderr } = await startProgram("scripts/test-nats-js.ts", args).ended;
    expect(status, `${stdout}\n${stderr}`).toBe(0);
    expect(stdout).toMatch(/Tests .*\d+ passed/);
  }
}, 1_200_000);
