import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished, type TestContext, TestRunner } from "vitest";

/**
 * A directory that is removed when the test has ended. Every user may enter it.
 *
 * @param context of the test. A concurrent test has to give it: without it, Vitest may take another test for this one.
 */
export function temporaryDirectory(context?: TestContext): string {
  if (context === undefined && TestRunner.getCurrentTest()?.concurrent === true)
    throw new Error("A concurrent test must pass its context to temporaryDirectory().");
  const directory = mkdtempSync(join(tmpdir(), "hawser-test-"));
  chmodSync(directory, 0o755);
  const atEnd = context?.onTestFinished ?? onTestFinished;
  atEnd(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}
