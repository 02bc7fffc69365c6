/**
 * The blocks of SQL beside this file: those of the documentation of the extension that people come from, in its order and
 * as written there, with the punctuation that it has lost on its way to us. What it leaves open was filled in: semicolons,
 * and which words are joined by "_", "." or "-".
 */
import { readdirSync, readFileSync } from "node:fs";

const directory = new URL(".", import.meta.url);

/** The names of the blocks, in their order. */
export const blocks: readonly string[] = readdirSync(directory)
  .filter((name) => name.endsWith(".sql"))
  .sort();

/** The statements of a block, as they are written. */
export function statementsOf(block: string): string[] {
  const text = readFileSync(new URL(block, directory), "utf8");
  // Up to a semicolon that is in no comment, string or body of a function.
  const statements = text.match(/(?:--[^\n]*\n|'(?:[^']|'')*'|\$\$[\s\S]*?\$\$|[^;])+;/g) ?? [];
  return statements.map((statement) => statement.trim());
}

/** Statement that needs a Postgres with the extension's files: another test file runs it. */
export const extensionStatement = "CREATE EXTENSION";

/** True for what is kept, and not run with the others. */
export function isElsewhere(statement: string): boolean {
  return statement.includes(extensionStatement);
}

/** The options of a CREATE SERVER with other values: by name; undefined takes the option out. */
export function withOptions(statement: string, changes: Readonly<Record<string, string | undefined>>): string {
  let changed = statement;
  for (const [name, value] of Object.entries(changes)) {
    const option = new RegExp(`^ *${name} '[^']*'(,?)`, "m");
    if (!option.test(changed)) throw new Error(`there is no option ${name} in ${statement}`);
    changed = changed.replace(option, (_all, comma: string) =>
      value === undefined ? "" : `  ${name} '${value}'${comma}`,
    );
  }
  return changed;
}
