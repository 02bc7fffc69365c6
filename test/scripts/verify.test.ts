/**
 * Output and findings of `npm run verify`, without the programs that its steps run: test/codegen/verify.slow.test.ts
 * runs those.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { runSteps, type Step } from "../../scripts/verify/step.js";
import { compareTrees } from "../../scripts/verify/trees.js";
import { temporaryDirectory } from "../support/temporary.js";

it("runs all steps, says of each how it went and what to do, and whether none failed", async () => {
  const good: Step = { name: "good", run: async () => ({ kind: "ok" }) };
  const bad: Step = { name: "bad", run: async () => ({ kind: "failed", details: "a\nb\n", remedy: "Mend it." }) };
  const broken: Step = { name: "broken", run: () => Promise.reject(new Error("no buf")) };
  const lines: string[] = [];
  expect(await runSteps([bad, broken, good], (line) => lines.push(line))).toBe(false);
  expect(lines.join("\n").replaceAll(/\d+ ms/g, "N ms")).toMatch(
    /^failed {2}bad {9}N ms\n {2}a\n {2}b\n {2}→ Mend it.\nfailed {2}broken {6}N ms\n {2}Error: no buf\n[\s\S]+→ The step itself could not run: read the error above.\nok {6}good {8}N ms\nverify: 2 of 3 failed$/,
  );
  expect(await runSteps([good], (line) => lines.push(line))).toBe(true);
  expect(lines.at(-1)).toBe("verify: ok");
});

it("names files that are missing, extra and changed, with a part of the diff; line ends do not count", async () => {
  const tree = (files: Readonly<Record<string, string>>) => {
    const root = temporaryDirectory();
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return root;
  };
  const committed = tree({ "a.ts": "one\n", "ts/old.ts": "", "ts/same.ts": "x\r\ny\r\n" });
  const made = tree({ "a.ts": "two\n", "ts/new.ts": "", "ts/same.ts": "x\ny\n" });
  const [changed, diff, ...rest] = await compareTrees(committed, made);
  expect(changed).toBe("changed: generated/a.ts");
  expect(diff).toContain("  -one\n  +two");
  expect(rest).toEqual(["missing: generated/ts/new.ts", "extra: generated/ts/old.ts"]);
  expect(await compareTrees(join(committed, "nowhere"), tree({}))).toEqual([]);
});
