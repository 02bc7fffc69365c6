/** Checks that the imports of a source tree follow the layers, and go through the `index.ts` of folders. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { importsOf } from "./imports.js";
import { whyForbidden, whyNoRoom, whyPastIndex, wingFolders } from "./rules.js";

/** Result of the check. */
export interface LayerReport {
  readonly files: number;
  readonly imports: number;
  /** Violations, one line each: file and line, the import, and the broken rule. */
  readonly violations: readonly string[];
}

/** Checks `src/` and `generated/` below the root. Imports of packages and of Node.js modules are not checked. */
export function checkLayers(root: string): LayerReport {
  const isFile = (path: string): boolean => existsSync(join(root, path));
  const files = ["src", "generated"].flatMap((folder) => typescriptFiles(root, folder)).sort();
  let imports = 0;
  const violations: string[] = [];
  for (const file of files) {
    const why = whyNoRoom(file);
    if (why !== undefined) violations.push(`${file} ${why}`);
    for (const { specifier, line } of importsOf(file, readFileSync(join(root, file), "utf8"))) {
      if (!specifier.startsWith(".")) continue;
      imports++;
      const imported = posix.join(posix.dirname(file), specifier);
      const why = whyForbidden(file, imported) ?? whyPastIndex(file, imported, isFile);
      if (why !== undefined) violations.push(`${file}:${line} imports "${specifier}": ${why}`);
    }
  }
  for (const [folder, count] of countsByFolder(files.filter((file) => file.startsWith("src/"))))
    if (count > mostWithoutPage && !isFile(`${folder}/README.md`))
      violations.push(`${folder}: ${count} files need a README.md on how the folder works`);
  for (const wing of wingFolders.filter(isFile)) {
    const lines = isFile(`${wing}/README.md`)
      ? readFileSync(join(root, wing, "README.md"), "utf8").split("\n").length
      : 0;
    if (lines === 0 || lines > mostLinesOfWing)
      violations.push(
        `${wing}: a wing needs a README.md of at most ${mostLinesOfWing} lines, and this one has ${lines}`,
      );
  }
  return { files: files.length, imports, violations };
}

/** Number of files of a folder that a reader overlooks without a page about them. */
const mostWithoutPage = 10;

/** Lines of a page that says what a wing is: one screen. */
const mostLinesOfWing = 40;

function countsByFolder(files: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(posix.dirname(file), (counts.get(posix.dirname(file)) ?? 0) + 1);
  return counts;
}

function typescriptFiles(root: string, folder: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return typescriptFiles(root, path);
    return entry.name.endsWith(".ts") ? [path] : [];
  });
}
