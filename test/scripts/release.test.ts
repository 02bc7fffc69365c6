/** `npm run release`, until it makes something. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { projectDirectory, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";

const tsx = join(projectDirectory, "node_modules/tsx/dist/loader.mjs");
const script = join(projectDirectory, "scripts/release.ts");

/** Runs it in a checkout of one commit, which is v0.1.0, and a draft if there is one. */
function release(args: readonly string[], draft?: string) {
  const checkout = temporaryDirectory();
  const git = (...command: readonly string[]) => execFileSync("git", command, { cwd: checkout });
  git("init", "--quiet");
  git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--allow-empty", "--message=first");
  git("tag", "v0.1.0");
  if (draft !== undefined) writeFileSync(join(checkout, draft), "");
  const env = { GITHUB_REPOSITORY: "owner/name" };
  return startCommand(process.execPath, ["--import", tsx, script, ...args], { cwd: checkout, env }).ended;
}

it.each([
  [["1.2"], '"1.2" is not a version such as 0.2.0.'],
  [["v0.2.0"], '"v0.2.0" is not a version such as 0.2.0.'],
  [["0.2.0", "--skip-ci"], "--skip-ci is only for --dry-run."],
  [["0.2.0", "--dry-run", "--publish"], "--dry-run and --publish exclude each other."],
])("%j is refused with the usage", async (args, message) => {
  const { status, stderr } = await release(args);
  expect({ status, stderr }).toEqual({ status: 64, stderr: expect.stringContaining(`${message}\nUsage: `) });
});

it.each([
  [["0.1.0", "--dry-run"], "v0.1.0 exists. Choose a newer version.\n"],
  [["0.2.0", "--publish"], "The commit is not v0.2.0. Publish from a checkout of the tag.\n"],
])("%j is refused, as the tags are", async (args, message) => {
  expect(await release(args)).toMatchObject({ status: 1, stderr: message });
});

it("changes that are not committed are refused, and named", async () => {
  const { status, stderr } = await release(["0.2.0", "--dry-run"], "draft.md");
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: "Commit these changes first, since a release has the last commit:\n?? draft.md\n",
  });
});
