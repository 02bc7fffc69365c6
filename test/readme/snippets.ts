/**
 * The examples of a Markdown page. How an example is to be run stands behind the language of its block:
 *
 *     ```ts run              a program of its own
 *     ```ts run with peer    goes on from the preamble: a running `peer`, and `orders-1` that serves `orders`
 *     ```ts run with nats    goes on from the preamble: a `pool` of a database whose SQL functions reach NATS
 *     ```ts check            a program that only the type checker reads: it names files that are not here
 *     ```ts billing.ts       a file of the user's own project, which the commands of that project run
 *     ```sql run             statements, each after those of the blocks before, in one session of such a database
 *     ```sql run until       the same, done again and again until it prints what the page says: what NATS causes takes time
 *
 * A ```text block that follows is what the example prints. The commands of the user's own project are the blocks
 * ```sh in your project, and ```sh in your project, stays for one that runs until it is stopped.
 */
import { join } from "node:path";
import { projectDirectory } from "../support/program.js";

/** What an example goes on from. */
type Preamble = "peer" | "nats";

/** An example. */
export interface Snippet {
  /** The line of the page on which its block begins. */
  readonly line: number;
  /** Undefined for a program of its own. */
  readonly preamble: Preamble | undefined;
  /** False where it is only type-checked. */
  readonly isRun: boolean;
  readonly code: string;
  /** What it prints; undefined where the page does not say. */
  readonly prints: string | undefined;
}

/** A step in the user's own project, in the order of the page. */
export type ProjectStep =
  | { readonly kind: "file"; readonly line: number; readonly name: string; readonly content: string }
  | {
      readonly kind: "command";
      readonly line: number;
      readonly script: string;
      /** It runs until it is stopped. */
      readonly stays: boolean;
      /** What it prints; undefined where the page does not say. */
      readonly prints: string | undefined;
    };

export interface Block {
  readonly line: number;
  readonly info: string;
  readonly content: string;
}

const projectFile = /^ts ([\w-]+\.ts)$/;
const projectCommand = /^sh in your project(, stays)?$/;

/** What a user does in a project of their own, as the page says. */
export function projectStepsOf(markdown: string): ProjectStep[] {
  const blocks = blocksOf(markdown);
  return blocks.flatMap(({ line, info, content }, index): ProjectStep[] => {
    const name = projectFile.exec(info)?.[1];
    if (name !== undefined) return [{ kind: "file", line, name, content }];
    const command = projectCommand.exec(info);
    if (command === null) return [];
    const next = blocks[index + 1];
    const prints = next?.info === "text" ? next.content : undefined;
    return [{ kind: "command", line, script: content, stays: command[1] !== undefined, prints }];
  });
}

/** The examples of a page. @throws if a block of TypeScript does not say how it is run */
export function snippetsOf(markdown: string): Snippet[] {
  const blocks = blocksOf(markdown);
  return blocks.flatMap(({ line, info, content }, index) => {
    if (!/^ts\b/.test(info) || projectFile.test(info)) return [];
    const known = /^ts (?:check|run(?: with (peer|nats))?)$/.exec(info);
    if (known === null) {
      throw new Error(
        `line ${line}: \`\`\`${info} does not say how it is run; write "ts run", "ts run with peer", "ts run with nats" or "ts check"`,
      );
    }
    const next = blocks[index + 1];
    const prints = next?.info === "text" ? next.content : undefined;
    const isRun = info !== "ts check";
    return [{ line, preamble: known[1] as Preamble | undefined, isRun, code: content, prints }];
  });
}

/** Statements of a page, and what they print. */
export interface SqlSnippet {
  /** The line of the page on which its block begins. */
  readonly line: number;
  readonly statements: readonly string[];
  /** They are to be done until they print what the page says. */
  readonly until: boolean;
  /** Undefined where the page does not say. */
  readonly prints: string | undefined;
}

/** The SQL examples of a page, in its order. */
export function sqlSnippetsOf(markdown: string): SqlSnippet[] {
  const blocks = blocksOf(markdown);
  return blocks.flatMap(({ line, info, content }, index) => {
    if (info !== "sql run" && info !== "sql run until") return [];
    const next = blocks[index + 1];
    const prints = next?.info === "text" ? next.content : undefined;
    return [{ line, statements: statementsOf(content), until: info.endsWith("until"), prints }];
  });
}

/** Statements end with a semicolon at the end of a line, but not within a body in dollar quotes. */
function statementsOf(sql: string): string[] {
  const statements: string[] = [];
  let open = "";
  for (const line of sql.split("\n")) {
    open += `${line}\n`;
    const isQuoted = open.split("$$").length % 2 === 0;
    if (isQuoted || !line.endsWith(";")) continue;
    statements.push(open);
    open = "";
  }
  if (open.trim() !== "") throw new Error(`a statement does not end with a semicolon: ${open}`);
  return statements;
}

export function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { line: number; info: string; lines: string[] } | undefined;
  for (const [index, text] of markdown.split("\n").entries()) {
    if (open === undefined) {
      if (text.startsWith("```")) open = { line: index + 1, info: text.slice(3).trim(), lines: [] };
    } else if (text === "```") {
      blocks.push({ line: open.line, info: open.info, content: `${open.lines.join("\n")}\n` });
      open = undefined;
    } else open.lines.push(text);
  }
  if (open !== undefined) throw new Error(`line ${open.line}: the block is not closed`);
  return blocks;
}

/** The modules that an example may import from, by their names for users. */
const modules: Readonly<Record<string, string>> = {
  hawser: "src/peer/index.js",
  "hawser/nats": "src/serve/index.js",
};

/** What an example imports from others, and is installed here. */
const others = /^(?:drizzle-orm|knex|kysely|pg)(?:\/|$)/;

/** The example as a program, which imports this project from `root`: its sources, or what they are compiled to. */
export function programOf(example: Pick<Snippet, "code" | "preamble">, root = projectDirectory): string {
  const { code, preamble } = example;
  const imports = code.match(/^import .*\n/gm) ?? [];
  const body = code.replace(/^import .*\n/gm, "");
  const head = preamble === undefined ? "" : preambles[preamble];
  const names = imports.flatMap((line) => importsOf(line, root));
  if (preamble === "peer") names.push(["Peer", join(root, "src/peer/index.js")]);
  if (preamble === "nats") names.push(["sqlFunctions", join(root, "test/readme/programs/sql-functions.js")]);
  const lines = names.map(([name, file]) => `import { ${name} } from ${JSON.stringify(file)};`);
  return `${[...new Set(lines)].join("\n")}\n${head}${body}`;
}

/** Each name, and the file that it is imported from. */
function importsOf(line: string, root: string): string[][] {
  const [, names, module] = /^import \{ (.*) \} from "(.*)";\n$/.exec(line) ?? [];
  if (names !== undefined && others.test(module!)) return names.split(", ").map((name) => [name, module!]);
  if (names === undefined || !Object.hasOwn(modules, module!)) {
    throw new Error(`an example may only import from ${Object.keys(modules).join(" and ")}: ${line}`);
  }
  return names.split(", ").map((name) => [name, join(root, modules[module!]!)]);
}

const preambles: Readonly<Record<Preamble, string>> = {
  peer: `
await using orders = new Peer({ name: "orders-1", topic: "orders", listen: "127.0.0.1:0" });
await orders.run(() => undefined);
await using peer = new Peer({ name: "billing-1", topic: "billing", listen: "127.0.0.1:0" });
await peer.run();
`,
  nats: `
await using here = await sqlFunctions(process.env.HAWSER_DATABASE_URL!, process.env.HAWSER_NATS_URL!);
const { pool } = here;
`,
};
