/**
 * The statements of docs/store-protocol.md, by the names behind their code blocks' language: the page is what this peer
 * runs.
 */
import { readFileSync } from "node:fs";

const page = readFileSync(new URL("../../../docs/store-protocol.md", import.meta.url), "utf8");

/** Every statement of the page. */
export const statements: ReadonlyMap<string, string> = new Map(
  [...page.matchAll(/^( *)```sql ([a-z-]+)\n([\s\S]*?)\n *```$/gm)].map(([, , name, text]) => [name!, text!.trim()]),
);

/** The statement of that name. @throws if the page has none */
export function statement(name: string): string {
  const text = statements.get(name);
  if (text === undefined) throw new Error(`docs/store-protocol.md has no statement "${name}"`);
  return text;
}
