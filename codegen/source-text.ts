import { existsSync, readFileSync } from "node:fs";

/**
 * Reads the text of a TypeScript file by its path in this folder. The published package takes it from the source map of
 * the compiled file.
 */
export function sourceText(path: string): string {
  const source = new URL(path, import.meta.url);
  if (existsSync(source)) return readFileSync(source, "utf8");
  const map = readFileSync(new URL(path.replace(/\.ts$/, ".js.map"), import.meta.url), "utf8");
  return (JSON.parse(map) as { readonly sourcesContent: readonly [string] }).sourcesContent[0];
}
