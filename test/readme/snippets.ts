/**
 * The samples of a Markdown page. How a sample is run stands behind the language of its block:
 *
 *     ```ts run              a program of its own
 *     ```ts run with peer    goes on from the first program of docs/peers.md: a running `peer`, and `orders-1` that serves `orders`
 *     ```ts run with client  goes on from the preamble: a connected `client`, and tables of orders and invoices; both tables are to
 *                            have the order `id` in the end
 *     ```ts run with nats    goes on from the preamble: a `pool` of a database whose SQL functions reach NATS
 *     ```sql run             statements, each after those of the blocks before, in one session of such a database
 *     ```sql run until       the same, done again and again until it prints what the page says: what NATS causes takes time
 *     ```ts beside           also js: a program that runs beside the statements from there on, until it or the page ends
 *     ```ts billing.ts       also typescript, js, sql, json, yaml, proto: a file of a project that a test of this page makes and runs
 *     ```sh in your project  a command of the user's own project; `in your project, stays` until it is stopped
 *     ```sh in CI            commands of README.md that .ci/run calls
 *     ```sql keep-name       a statement of docs/store-protocol.md, which a peer of the conformance tests runs by its name
 *     ```sql fragment        any language: a piece of something larger, or a command that would change the machine. Not run
 *     ```ts fragment check   the same, and the type checker reads it
 *
 * A ```text block that follows is what the sample prints. {@link runOf} refuses a block that says nothing of this.
 */
import { join } from "node:path";
import { projectDirectory } from "../support/program.js";

/** Program that an example continues. */
type Preamble = "client" | "peer" | "nats";

/** A fenced block of a page. */
export interface Block {
  /** The line of the page on which it begins. */
  readonly line: number;
  readonly info: string;
  readonly content: string;
  /** Output, as a block of text behind it shows it; undefined where the page shows none. */
  readonly prints: string | undefined;
}

/** An example. */
export interface Snippet extends Pick<Block, "line" | "prints"> {
  /** Undefined for a program of its own. */
  readonly preamble: Preamble | undefined;
  /** False where it is only type-checked here. */
  readonly isRun: boolean;
  readonly code: string;
}

/** A step in the user's own project: a file, or a command, which may stay until it is stopped. */
export type ProjectStep =
  | { readonly kind: "file"; readonly name: string; readonly content: string }
  | { readonly kind: "command"; readonly script: string; readonly stays: boolean; readonly prints: string | undefined };

const projectFile = /^(?:ts|typescript|js|sql|json|yaml|proto) ([\w./-]+\.\w+)$/;
const pageStep = /^sql run(?: until)?$|^[tj]s beside$/;
const projectCommand = /^sh in your project(, stays)?$/;

/** Way in which tests run a block, as {@link runOf} finds it. */
export type Run = "not a program" | "fragment" | "snippet" | "in the page" | "file" | "project" | "ci" | "statement";

const runs: readonly (readonly [RegExp, Run])[] = [
  [projectFile, "file"],
  [/^(?:text|json|yaml|proto)$/, "not a program"],
  [/^\w+ fragment$|^ts fragment check$/, "fragment"],
  [/^ts run(?: with (?:client|peer|nats))?$/, "snippet"],
  [pageStep, "in the page"],
  [projectCommand, "project"],
  [/^sh in CI$/, "ci"],
  [/^sql [a-z-]+$/, "statement"],
];

/** Way in which a block is run. @throws if the block does not name one */
export function runOf({ line, info }: Block): Run {
  const run = runs.find(([pattern]) => pattern.test(info))?.[1];
  if (run !== undefined) return run;
  throw new Error(
    `line ${line}: \`\`\`${info} does not say how it is run; write one of those that test/readme/snippets.ts lists, ` +
      `or "${info.split(" ")[0] || "text"} fragment" if it cannot be run as it stands`,
  );
}

/** The files that a page shows whole, in its order. */
export function filesOf(markdown: string): (Omit<Block, "info"> & { readonly name: string })[] {
  return blocksOf(markdown).flatMap(({ info, ...block }) => {
    const name = projectFile.exec(info)?.[1];
    return name === undefined ? [] : [{ ...block, name }];
  });
}

/** Steps of a user in a project of their own, as the page describes them. */
export function projectStepsOf(markdown: string): ProjectStep[] {
  return blocksOf(markdown).flatMap(({ info, content, prints }): ProjectStep[] => {
    const name = projectFile.exec(info)?.[1];
    if (name !== undefined) return [{ kind: "file", name, content }];
    const command = projectCommand.exec(info);
    return command === null ? [] : [{ kind: "command", script: content, stays: command[1] !== undefined, prints }];
  });
}

/** The programs of a page that stand by themselves. */
export function snippetsOf(markdown: string): Snippet[] {
  return blocksOf(markdown).flatMap(({ line, info, content, prints }) => {
    const known = /^ts (?:fragment check|run(?: with (client|peer|nats))?|beside)$/.exec(info);
    if (known === null) return [];
    const preamble = known[1] as Preamble | undefined;
    return [{ line, preamble, isRun: info.startsWith("ts run"), code: content, prints }];
  });
}

/** Step of a page, in the order of the page: statements, and programs beside them. */
export type PageStep = Pick<Block, "line" | "prints"> &
  (
    | {
        readonly kind: "sql";
        readonly statements: readonly string[];
        /** They are to be done until they print what the page says. */
        readonly until: boolean;
      }
    | { readonly kind: "program"; readonly code: string }
  );

/** The SQL samples of a page and the programs beside them, in its order. */
export function pageStepsOf(markdown: string): PageStep[] {
  return blocksOf(markdown).flatMap(({ line, info, content, prints }): PageStep[] => {
    if (!pageStep.test(info)) return [];
    const at = { line, prints };
    if (!info.startsWith("sql")) return [{ ...at, kind: "program", code: content }];
    return [{ ...at, kind: "sql", statements: statementsOf(content), until: info.endsWith("until") }];
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

/** The fenced blocks of a page, without the indentation that they have in a list. @throws if one is not closed */
export function blocksOf(markdown: string): Block[] {
  const blocks: Omit<Block, "prints">[] = [];
  let open: { line: number; indent: string; info: string; lines: string[] } | undefined;
  for (const [index, text] of markdown.split("\n").entries()) {
    if (open === undefined) {
      const [, indent, info] = /^( *)```(.*)$/.exec(text) ?? [];
      if (indent !== undefined) open = { line: index + 1, indent, info: info!.trim(), lines: [] };
    } else if (text === `${open.indent}\`\`\``) {
      blocks.push({ line: open.line, info: open.info, content: `${open.lines.join("\n")}\n` });
      open = undefined;
    } else open.lines.push(text.startsWith(open.indent) ? text.slice(open.indent.length) : text);
  }
  if (open !== undefined) throw new Error(`line ${open.line}: the block is not closed`);
  return blocks.map((block, index) => {
    const next = blocks[index + 1];
    return { ...block, prints: next?.info === "text" ? next.content : undefined };
  });
}

/** The modules that an example may import from, by their names for users. */
const modules: Readonly<Record<string, string>> = {
  hawser: "src/jobs-and-peers/peer/index.js",
  "hawser/nats": "src/nats/client/index.js",
  "hawser/otel": "src/operating/otel/index.js",
  "hawser/page": "src/operating/page/public.js",
};

/** Imports from others that are installed here, or part of Node. */
const others = /^(?:drizzle-orm|knex|kysely|pg|zod|@opentelemetry|node:\w+)(?:\/|$)/;

/** The example as a program, which imports this project from `root`: its sources, or what they are compiled to. */
export function programOf(example: Pick<Snippet, "code" | "preamble">, root = projectDirectory): string {
  const { code, preamble } = example;
  const imports = code.match(/^import .*\n/gm) ?? [];
  const body = code.replace(/^import .*\n/gm, "");
  const head = preamble === undefined ? "" : preambles[preamble];
  const names = imports.flatMap((line) => importsOf(line, root));
  if (preamble === "peer") {
    for (const name of ["HawserError", "Peer", "Reject"]) names.push([name, join(root, modules["hawser"]!)]);
  }
  if (preamble === "client") names.push(["Client", "pg"]);
  if (preamble === "nats") names.push(["sqlFunctions", join(root, "test/readme/programs/sql-functions.js")]);
  const lines = names.map(([name, file]) => `import { ${name} } from ${JSON.stringify(file)};`);
  const tail = preamble === "client" ? clientTail : "";
  return `${[...new Set(lines)].join("\n")}\n${head}${body}${tail}`;
}

/** Each name, and the file that it is imported from. */
function importsOf(line: string, root: string): string[][] {
  const [, names, module] = /^import \{ (.*) \} from "(.*)";\n$/.exec(line) ?? [];
  if (names !== undefined && others.test(module!)) return names.split(", ").map((name) => [name, module!]);
  if (names === undefined || !Object.hasOwn(modules, module!)) {
    throw new Error(`an example may only import from ${Object.keys(modules).join(", ")}: ${line}`);
  }
  return names.split(", ").map((name) => [name, join(root, modules[module!]!)]);
}

const preambles: Readonly<Record<Preamble, string>> = {
  client: `
const client = new Client(process.env.HAWSER_DATABASE_URL!);
await client.connect();
await client.query("CREATE TABLE orders (id int); CREATE TABLE invoices (order_id int)");
const id = 17;
`,
  peer: `
await using orders = new Peer({ name: "orders-1" });
await orders.handle("orders", () => undefined);
await orders.start();
await using peer = new Peer({ name: "billing-1", topic: "billing" });
await peer.start();
`,
  nats: `
await using here = await sqlFunctions(process.env.HAWSER_DATABASE_URL!, process.env.HAWSER_NATS_URL!);
const { pool } = here;
`,
};

/** Ends when the handler of `billing` has committed: without an invoice for the order it never does. */
const clientTail = `
let billed: unknown[] = [];
while (billed.length === 0) billed = (await client.query("SELECT id FROM orders JOIN invoices ON order_id = id")).rows;
if (billed.length > 1) throw new Error("the order has " + billed.length + " invoices");
await billing.stop();
await client.end();
`;
