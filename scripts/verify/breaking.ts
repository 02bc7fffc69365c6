import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { buf, command, git, projectRoot } from "./command.js";
import type { Outcome, Step } from "./step.js";
import { withTemporaryFolder } from "./temporary-folder.js";

/** Image of the spec that is compared with until there is a release: `npm run baseline` makes it. */
const baseline = "proto/baseline.binpb";

/** Step that checks that the spec is compatible with the last release, or before the first with the baseline. */
export const breakingStep: Step = {
  name: "breaking",
  run: () =>
    withTemporaryFolder(async (folder) => {
      const tag = await lastReleaseTag();
      if (tag !== undefined) {
        return compareWith(
          await releasedSpec(tag, folder),
          folder,
          `Take the change back or make it an addition: peers of ${tag} read the spec as it was.`,
        );
      }
      return existsSync(join(projectRoot, baseline))
        ? compareWith(
            baseline,
            folder,
            "Take the change back or make it an addition; if it is meant, run: npm run baseline",
          )
        : { kind: "failed", details: `${baseline} does not exist`, remedy: "Run: npm run baseline" };
    }),
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
 * Makes an image of a release's spec, which is unpacked first because buf cannot read all kinds of shallow and detached
 * clones.
 */
async function releasedSpec(tag: string, folder: string): Promise<string> {
  const archive = join(folder, "spec.tar");
  const spec = join(folder, "spec");
  const image = join(folder, "released.binpb");
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
  const { status, output } = await buf("build", spec, "--output", image);
  if (status !== 0) throw new Error(`buf cannot build the spec of ${tag}: ${output}`);
  return image;
}

/** Compares images, since buf compares only as many modules as there were. */
async function compareWith(image: string, folder: string, remedy: string): Promise<Outcome> {
  const current = join(folder, "spec.binpb");
  const built = await buf("build", "--output", current);
  const { status, output } = built.status === 0 ? await buf("breaking", current, "--against", image) : built;
  return status === 0 ? { kind: "ok" } : { kind: "failed", details: output, remedy };
}
