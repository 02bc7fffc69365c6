import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** The texts of a file, or of each file of a folder in TypeScript or SQL, without comments. */
export function codeOf(path: string): string[] {
  const files = statSync(path).isDirectory()
    ? readdirSync(path, { recursive: true, encoding: "utf8" })
        .filter((file) => /\.(ts|sql)$/.test(file))
        .map((file) => join(path, file))
    : [path];
  return files.map((file) => readFileSync(file, "utf8").replace(/\/\*.*?\*\/|(\/\/|--) .*?$/gms, ""));
}
