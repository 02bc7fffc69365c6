/**
 * The alerts of the chart, by Prometheus's own tool. The package that it comes in takes a while to fetch.
 *
 * Without one they are skipped, with a line that says so; where CI is set they fail.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { projectDirectory } from "../../support/program.js";
import { findPromtool } from "../../support/promtool.js";

const run = promisify(execFile);
const directory = join(projectDirectory, "deploy/chart");
const rules = readFileSync(join(directory, "alerts.yaml"), "utf8");
const tests = readFileSync(join(directory, "alerts.test.yaml"), "utf8");

const promtool = await findPromtool().catch((error: unknown) => {
  if (process.env["CI"]) throw error;
  console.error(
    `The alerts are not tested: there is no promtool on PATH, and none could be fetched (${String(error)})`,
  );
  return undefined;
});

it.skipIf(promtool === undefined)("promtool loads the alerts", async () => {
  const { stdout } = await run(promtool!, ["check", "rules", "alerts.yaml"], { cwd: directory });
  const count = [...rules.matchAll(/- alert: /g)].length;
  expect(stdout).toContain(`SUCCESS: ${count} rules found`);
});

it.skipIf(promtool === undefined)("they fire when they should, and not when not, by promtool's tests", async () => {
  const { stdout } = await run(promtool!, ["test", "rules", "alerts.test.yaml"], { cwd: directory });
  expect(stdout).toContain("SUCCESS");
});

it("each alert has a test in which it fires, and one in which it does not", () => {
  for (const [, name] of rules.matchAll(/- alert: (\w+)/g)) {
    expect(tests).toContain(`alertname: ${name}, exp_alerts: [] }`);
    expect(tests).toMatch(new RegExp(`alertname: ${name}\\n +exp_alerts:\\n`));
  }
});
