import { readFileSync } from "node:fs";

/** The text of a TypeScript file, by its path in this folder. */
export function sourceText(path: string): string {
  return readFileSync(new URL(path, import.meta.url), "utf8");
}
