import { readFileSync } from "node:fs";

/**
 * Reads the text of a TypeScript file by its path in this folder. The published package takes it from the source map of
 * the compiled file.
 */
export function sourceText(path: string): string {
  return readFileSync(new URL(path, import.meta.url), "utf8");
}
