/**
 * The TypeScript examples of a Markdown page. How an example is to be run stands behind the language of its block:
 *
 *     ```ts run              a program of its own
 *     ```ts run with peer    goes on from the preamble: a running `peer`, and `orders-1` that serves `orders`
 *     ```ts billing.ts       a file of the user's own project, which the commands of that project run
 *
 * A ```text block that follows is what the example prints. The commands of the user's own project are the blocks
 * ```sh in your project, and ```sh in your project, stays for one that runs until it is stopped.
 */

/** An example. */
export interface Snippet {
  /** The line of the page on which its block begins. */
  readonly line: number;
  readonly usesPeer: boolean;
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

interface Block {
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
    if (info !== "ts run" && info !== "ts run with peer") {
      throw new Error(`line ${line}: \`\`\`${info} does not say how it is run; write "ts run" or "ts run with peer"`);
    }
    const next = blocks[index + 1];
    const prints = next?.info === "text" ? next.content : undefined;
    return [{ line, usesPeer: info.endsWith("with peer"), code: content, prints }];
  });
}

function blocksOf(markdown: string): Block[] {
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

/** The example as a program whose `hawser` is the module of the given path. */
export function programOf({ code, usesPeer }: Pick<Snippet, "code" | "usesPeer">, hawser: string): string {
  const imports = code.match(/^import .*\n/gm) ?? [];
  const body = code.replace(/^import .*\n/gm, "");
  const head = new Set([...imports, ...(usesPeer ? ['import { Peer } from "hawser";\n'] : [])].flatMap(namesOf));
  const lines = [...head].map((name) => `import { ${name} } from ${JSON.stringify(hawser)};`);
  return `${lines.join("\n")}\n${usesPeer ? preamble : ""}${body}`;
}

/** The names that a line imports from hawser, which is all that an example may need. */
function namesOf(line: string): string[] {
  const names = /^import \{ (.*) \} from "hawser";\n$/.exec(line)?.[1];
  if (names === undefined) throw new Error(`an example may only import from "hawser": ${line}`);
  return names.split(", ");
}

const preamble = `
const databaseUrl = process.env.HAWSER_DATABASE_URL;
await using orders = new Peer({ name: "orders-1", topic: "orders", listen: "127.0.0.1:0", databaseUrl });
await orders.run(() => undefined);
await using peer = new Peer({ name: "billing-1", topic: "billing", listen: "127.0.0.1:0", databaseUrl });
await peer.run();
`;
