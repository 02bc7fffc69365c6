import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { buf, command, git } from "./command.js";
import type { Outcome, Step } from "./step.js";
import { withTemporaryFolder } from "./temporary-folder.js";

/** Step that checks that the spec is compatible with the last release. */
export const breakingStep: Step = {
  name: "breaking",
  async run() {
    const tag = await lastReleaseTag();
    return tag === undefined
      ? { kind: "skipped", because: "there is no release tag (v*) here to compare with" }
      : compareWith(tag);
  },
};

/**
 * Greatest v* tag among the ancestors of HEAD, pre-releases before their release. In a shallow clone, where the
 * ancestors are unknown, the greatest tag of all.
 */
async function lastReleaseTag(): Promise<string | undefined> {
  const list = ["-c", "versionsort.suffix=-", "tag", "--list", "v[0-9]*", "--sort=-version:refname"];
  const shallow = await git("rev-parse", "--is-shallow-repository");
  if (shallow.status !== 0) {
    // A tree without git, such as an unpacked archive.
    return undefined;
  }
  const { status, output, stdout } = await git(
    ...list,
    ...(shallow.stdout.trim() === "true" ? [] : ["--merged", "HEAD"]),
  );
  if (status !== 0) {
    throw new Error(`git cannot list the tags: ${output}`);
  }
  return stdout.split("\n").find((tag) => tag !== "");
}

/**
 * Compares with the release's spec, which is unpacked first because buf cannot read all kinds of shallow and detached
 * clones.
 */
function compareWith(tag: string): Promise<Outcome> {
  return withTemporaryFolder(async (folder) => {
    const archive = join(folder, "spec.tar");
    const spec = join(folder, "spec");
    await mkdir(spec);
    for (const [program, ...args] of [
      ["git", "archive", "--format=tar", `--output=${archive}`, tag, "buf.yaml", "proto"],
      ["tar", "-xf", archive, "-C", spec],
    ] as const) {
      const { status, output } = await command(program, args);
      if (status !== 0) {
        throw new Error(`${program} cannot unpack the spec of ${tag}: ${output}`);
      }
    }
    const { status, output } = await buf("breaking", "--against", spec);
    return status === 0
      ? { kind: "ok" }
      : {
          kind: "failed",
          details: output,
          remedy: `Take the change back or make it an addition: peers of ${tag} read the spec as it was.`,
        };
  });
}
