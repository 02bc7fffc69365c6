/**
 * `npm run test:nats-js -- <version> [vitest's arguments]`: the compiler and the test suite on another version of
 * nats.js.
 *
 * They run in a copy of the project, whose `node_modules` has the project's packages and that version of `@nats-io/*`.
 * The cache directory keeps the versions.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { cacheDirectory } from "../src/development/dev/index.js";
import { installPackage } from "./npm-cache/install-package.js";
import { project, runSuite } from "./suite/run-suite.js";

const [version = "", ...args] = process.argv.slice(2);
const { dependencies } = JSON.parse(readFileSync(join(project, "package.json"), "utf8")) as {
  dependencies: Record<string, string>;
};
const [first, ...others] = Object.keys(dependencies).filter((name) => name.startsWith("@nats-io/"));

if (/^3\.\d+\.\d+$/.test(version)) {
  const place = join(cacheDirectory(), "nats-js", version);
  const copy = copyWith(
    dirname(
      installPackage(
        first!,
        version,
        place,
        others.map((other) => `${other}@${version}`),
      ),
    ),
  );
  try {
    console.error(`Running the compiler and the tests on nats.js ${version}`);
    const compiler = spawnSync(join(copy, "node_modules/.bin/tsc"), { cwd: copy, stdio: "inherit" });
    if (compiler.status === 0) await runSuite(args, {}, process.execPath, `${copy}/`);
    else process.exitCode = 1;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
} else {
  console.error(
    `"${version}" is not a version of nats.js that the tests support.\n` +
      `Usage: npm run test:nats-js -- 3.3.0|3.3.1|… [vitest's arguments]`,
  );
  process.exitCode = 64;
}

/** Creates a copy of the project with these packages as `node_modules/@nats-io`. */
function copyWith(packages: string): string {
  const copy = mkdtempSync(join(tmpdir(), "hawser-nats-js-"));
  for (const name of readdirSync(project)) {
    if (!["node_modules", "dist", ".git"].includes(name))
      cpSync(join(project, name), join(copy, name), { recursive: true });
  }
  const modules = join(copy, "node_modules");
  mkdirSync(modules);
  for (const name of readdirSync(join(project, "node_modules"))) {
    if (name !== ".cache" && name !== "@nats-io") symlinkSync(join(project, "node_modules", name), join(modules, name));
  }
  symlinkSync(packages, join(modules, "@nats-io"));
  return copy;
}
