/**
 * `npm run build`: makes what the package needs in `dist/`: bundled code, and declarations.
 *
 * Entry points, commands and the programs that these start keep their paths. What they share is in `dist/src/development/chunks/`, so
 * that a process loads some twenty files instead of hundreds. Comments stay in the declarations, which editors show, and
 * are removed from the code, where they were a quarter of the size. Source maps name files and lines of the repository in
 * stack traces (`node --enable-source-maps`), without the sources. Files that no entry point and no command reaches are left
 * out. See docs/decisions/tests.md.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { decode, encode } from "@jridgewell/sourcemap-codec";
import { build } from "esbuild";
import { codeOf, readManifest } from "./package/manifest.js";
import { reachableFiles } from "./package/reachable-files.js";

/** Programs that others start or preload by path. */
const programs = [
  "dist/src/development/dev/watchdog.js",
  "dist/src/development/testing/faults-preload.js",
  "dist/src/development/testing/keeper.js",
];

const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
const dist = join(root, "dist");
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
const manifest = readManifest(root);

rmSync(dist, { recursive: true, force: true });
compile("--declaration", "false", "--removeComments", "--sourceMap");
compile("--emitDeclarationOnly");
await bundle();

const { files, missing } = reachableFiles(root, manifest);
if (missing.length > 0) throw new Error(`The package is incomplete. Correct package.json: ${missing.join("; ")}`);
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  const file = join(entry.parentPath, entry.name);
  if (entry.isFile() && !files.has(file.replace(/\.map$/, ""))) rmSync(file);
  else if (file.endsWith(".map")) keepLines(file);
}
console.log(`dist/ has ${files.size} files.`);

function compile(...options: readonly string[]): void {
  execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", dist, ...options], {
    cwd: root,
    stdio: "inherit",
  });
}

/** Drops the columns of a source map: they are four fifths of its size, and a stack trace is found by its lines. */
function keepLines(file: string): void {
  const map = JSON.parse(readFileSync(file, "utf8")) as { mappings: string };
  map.mappings = encode(decode(map.mappings).map((segments) => segments.slice(0, 1)));
  writeFileSync(file, JSON.stringify(map));
}

/** Replaces compiled files by bundles. Other packages stay outside: users have them, and share them with their own code. */
async function bundle(): Promise<void> {
  await build({
    absWorkingDir: root,
    entryPoints: [...codeOf(manifest), ...programs],
    outdir: dist,
    outbase: dist,
    allowOverwrite: true,
    // A chunk reaches the programs by the same relative paths as the rooms that start them.
    chunkNames: "src/development/chunks/[name]-[hash]",
    bundle: true,
    splitting: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "es2022",
    sourcemap: true,
    sourcesContent: false,
    logLevel: "warning",
  });
}
