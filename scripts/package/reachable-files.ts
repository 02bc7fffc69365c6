import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { importsOf } from "../layers/imports.js";
import { codeOf, entryPointsOf, type PackageManifest } from "./manifest.js";

/** Compiled files that a package needs, and the imports in them that lead to no file. */
export interface ReachableFiles {
  /** Absolute paths of code and declarations. */
  readonly files: ReadonlySet<string>;
  /** Lines about entry points, commands and imports without a file. */
  readonly missing: readonly string[];
}

/**
 * Follows imports from the entry points and commands of a package: from code to code, and from the declarations of
 * entry points to declarations.
 *
 * @param folder the root of the package
 */
export function reachableFiles(folder: string, manifest: PackageManifest): ReachableFiles {
  const declarations = [...entryPointsOf(manifest).values()].map(({ types }) => types);
  const files = new Set<string>();
  const missing: string[] = [];
  const visit = (file: string, from: string): void => {
    if (files.has(file)) return;
    if (!existsSync(file)) {
      missing.push(`${file.slice(folder.length + 1)}, which ${from} names, does not exist`);
      return;
    }
    files.add(file);
    for (const specifier of relativeImportsOf(file)) {
      const target = join(dirname(file), specifier);
      visit(file.endsWith(".d.ts") ? target.replace(/\.js$/, ".d.ts") : target, file.slice(folder.length + 1));
    }
  };
  for (const file of [...codeOf(manifest), ...declarations]) visit(join(folder, file), "package.json");
  return { files, missing };
}

/** Relative specifiers in a file: its imports, also within types, and the programs that it starts. */
function relativeImportsOf(file: string): string[] {
  const text = readFileSync(file, "utf8");
  const inCode = /(?:new URL\("(\.[^"]+\.js)", import\.meta\.url\)|\bimport\("(\.[^"]+)"\))/g;
  const others = [...text.matchAll(inCode)].map(([, program, type]) => (program ?? type)!);
  const imports = importsOf(file, text).map(({ specifier }) => specifier);
  return [...imports, ...others].filter((specifier) => specifier.startsWith("."));
}
