/**
 * docs/getting-started.md, and then docs/runtimes.md, done as they stand: in an empty folder, with the package that npm pack
 * makes, their commands and files unchanged, each command that stays in a process group of its own, as a terminal would have it.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { pack } from "../package/pack.js";
import { eventually } from "../support/eventually.js";
import { type Program, startCommand } from "../support/program.js";
import { temporaryDirectory } from "../support/temporary.js";
import { readPage } from "./pages.js";
import { projectStepsOf } from "./snippets.js";

const steps = [readPage("docs/getting-started.md"), readPage("docs/runtimes.md")].flatMap(projectStepsOf);
/** Time limit of what may hang: downloads, and compilers on a machine that has much other work. */
const limitMs = 20 * 60_000;

/** A shell of its own, and what its command has written so far. */
interface Terminal {
  readonly program: Program;
  readonly output: () => string;
}

it("two processes of a new project exchange messages", { timeout: 2 * limitMs }, async () => {
  const parent = temporaryDirectory();
  await pack(join(parent, "hawser"));
  const project = join(parent, "my-project");
  mkdirSync(project);

  const terminals: Terminal[] = [];
  let databaseUrl: string | undefined;
  const open = (script: string): Terminal => {
    const program = startCommand("sh", ["-ec", script], {
      cwd: project,
      ownGroup: true,
      env: {
        HAWSER_DATABASE_URL: databaseUrl,
        // Nothing of this run's servers: the project has its own.
        HAWSER_TEST_DATABASE_URL: undefined,
        NO_COLOR: "1",
        FORCE_COLOR: undefined,
        npm_config_prefer_offline: "true",
        npm_config_update_notifier: "false",
      },
    });
    let written = "";
    for (const stream of [program.child.stdout, program.child.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        written += chunk.toString();
      });
    }
    const terminal = { program, output: () => written };
    terminals.push(terminal);
    return terminal;
  };
  onTestFinished(async () => {
    // The newest first, so that the database goes last.
    for (const { program } of terminals.reverse()) await interrupt(program);
  });
  /** A command that stays has begun when it says this. */
  const says = async (terminal: Terminal, words: RegExp): Promise<string> => {
    let ended = false;
    void terminal.program.ended.then(() => {
      ended = true;
    });
    await eventually(`it says ${words}:\n${terminal.output()}`, () => ended || words.test(terminal.output()), limitMs);
    const found = words.exec(terminal.output());
    if (found === null) throw new Error(`It ended without saying ${words}:\n${terminal.output()}`);
    return found[0];
  };

  const staying: Terminal[] = [];
  for (const step of steps) {
    if (step.kind === "file") writeFileSync(join(project, step.name), step.content);
    else if (step.stays) {
      const terminal = open(step.script);
      staying.push(terminal);
      // The one word that is not in the blocks: the URL that the first of them prints is HAWSER_DATABASE_URL for the others.
      if (databaseUrl === undefined)
        databaseUrl = await says(terminal, /(?<=HAWSER_DATABASE_URL=)postgresql:\/\/\S+(?=[\s\S]*All servers answer)/);
      else await says(terminal, step.prints === undefined ? /listens on / : new RegExp(`^${step.prints}`, "m"));
    } else {
      const { status, stdout, stderr } = await open(step.script).program.ended;
      expect(status, `${step.script}${stdout}${stderr}`).toBe(0);
      if (step.prints !== undefined) expect(withoutRace(stdout)).toEqual(withoutRace(step.prints));
    }
  }
  const [, , billing] = staying;
  expect(staying).toHaveLength(3);
  await says(billing!, /^shop-1 sends "order 1"\n/m);

  // And what the page says next: the order waits while its listener is away.
  const [billingCommand] = steps.flatMap((step) =>
    step.kind === "command" && step.script.includes("billing.ts") ? [step] : [],
  );
  const [shopCommand] = steps.flatMap((step) =>
    step.kind === "command" && step.script.includes("shop.ts") ? [step] : [],
  );
  await interrupt(billing!.program);
  const shop = open(shopCommand!.script);
  await says(shop, /^order 1 is stored$/m);
  const waiting = await open("npx hawser pending --json").program.ended;
  expect(JSON.parse(waiting.stdout)).toMatchObject({ listener: "billing-1", topic: "billing", count: 1 });
  const again = open(billingCommand!.script);
  const { status, stdout } = await shop.program.ended;
  expect({ status, stdout }).toEqual({ status: 0, stdout: 'order 1 is stored\nbilling-1 answers "paid"\n' });
  expect(shopCommand!.prints).toContain('billing-1 answers "paid"\n');
  await says(again, /^shop-1 sends "order 1"\n/m);
});

/** The lines of an output whose order, and whether an order is delivered or stored, depend on what came first. */
function withoutRace(output: string): string[] {
  return output
    .replace(/^(order \d+ is) (delivered|stored)$/m, "$1 accepted")
    .split("\n")
    .sort();
}

/** Ctrl-C in its terminal: the whole group hears it. Resolves when everything in it has ended. */
async function interrupt({ child, pid, ended }: Program): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) process.kill(-pid, "SIGINT");
  await ended;
}
