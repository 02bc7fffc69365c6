/** Report of the `hawser` command: the rules and the arguments of each command, as its `--help` explains them. */
import type { Argument } from "../../src/operating/cli/command-line.js";
import { commands } from "../../src/operating/cli/run.js";

/** Report with a section for each command, by name. */
export async function commandReport(): Promise<{ readonly names: number; readonly text: string }> {
  const names = Object.keys(commands).toSorted();
  const sections = names.map(async (name) => {
    const { summary, load } = commands[name]!;
    const { args, details } = (await load()).command;
    const rules = details === undefined ? "" : ` ${escaped(details)}.`;
    const rows = Object.entries(args).map((row) => rowOf(...row));
    return `## ${name}\n\n${summary}.${rules}\n\n| argument | |\n|---|---|\n${rows.join("\n")}\n`;
  });
  const text = `# Arguments of the hawser command\n\n${(await Promise.all(sections)).join("\n")}`;
  return { names: names.length, text };
}

function rowOf(name: string, argument: Argument): string {
  const hint = "valueHint" in argument ? ` ${argument.valueHint}` : "";
  const shown = `${argument.type === "positional" ? name.toUpperCase() : `--${name}`}${hint}`;
  const note = "default" in argument ? ` Default: ${argument.default}` : "";
  return `| \`${shown.replaceAll("|", "\\|")}\` | ${escaped(argument.description)}${note} |`;
}

/** Text as the cell of a table, in which angle brackets are no HTML. */
const escaped = (text: string): string => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
