/**
 * `npm run build`: compiles what the package needs into `dist/`.
 *
 * Comments stay in the declarations, which editors show, and are removed from the code, where they were a quarter of
 * the size. Files that no entry point and no command reaches are left out, such as declarations of internal code, and
 * code files that have only types. See docs/decisions/tests.md.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { transformSync } from "esbuild";
import { readManifest } from "./package/manifest.js";
import { reachableFiles } from "./package/reachable-files.js";

const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
const dist = join(root, "dist");
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");

rmSync(dist, { recursive: true, force: true });
compile("--declaration", "false", "--removeComments");
compile("--emitDeclarationOnly");

const { files, missing } = reachableFiles(root, readManifest(root));
if (missing.length > 0) throw new Error(`The package is incomplete. Correct package.json: ${missing.join("; ")}`);
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  const file = join(entry.parentPath, entry.name);
  if (entry.isFile() && !files.has(file)) rmSync(file);
}
for (const file of files) {
  if (file.endsWith(".js")) writeFileSync(file, reprinted(readFileSync(file, "utf8")));
}
console.log(`dist/ has ${files.size} files.`);

function compile(...options: readonly string[]): void {
  execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", dist, ...options], {
    cwd: root,
    stdio: "inherit",
  });
}

/** Reprints code with two spaces of indentation, like the sources: tsc indents by four, which adds 5 % to the code. */
function reprinted(code: string): string {
  return transformSync(code, { target: "es2022", charset: "utf8" }).code;
}
