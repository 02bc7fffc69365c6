/** Texts of `hawser --help` and `hawser COMMAND --help`. */
import { version } from "../../foundation/runtime/index.js";
import type { Argument, Command } from "./command-line.js";
import { styled } from "./output.js";

/** Command as the list of commands shows it. */
export interface ListedCommand {
  /** First sentence of its help, without the full stop. */
  readonly summary: string;
  /** Loads its file, which only the command itself needs. */
  readonly load: () => Promise<{ readonly command: Command }>;
}

/** Name with its description. */
type Row = readonly [name: string, description: string];

/** List of all commands. */
export function overview(commands: Readonly<Record<string, ListedCommand>>): string {
  const rows = Object.entries(commands).map(([name, { summary }]): Row => [name, summary]);
  return [
    styled("gray", `Messages and jobs between services, with the Postgres that they already run (hawser v${version})`),
    usage(`hawser ${Object.keys(commands).join("|")}`),
    section("COMMANDS", rows),
    `Use ${styled("cyan", "hawser <command> --help")} for more information about a command.`,
  ].join("\n\n");
}

/** Explanation of one command with its arguments and examples. */
export function commandHelp(name: string, summary: string, { details, args, examples }: Command): string {
  const description = details === undefined ? summary : `${summary}. ${details}`;
  const all = Object.entries(args);
  const places = all.filter(([, { type }]) => type === "positional");
  const options = all.filter(([, { type }]) => type !== "positional");
  const placeTexts = places.map(([place, argument]) => {
    const shown = place.toUpperCase();
    return isRequired(argument) ? `<${shown}>` : `[${shown}]`;
  });
  return [
    styled("gray", `${description} (hawser ${name} v${version})`),
    usage(["hawser", name, "[OPTIONS]", ...placeTexts].join(" ")),
    ...(places.length === 0 ? [] : [section("ARGUMENTS", places.map(rowOf))]),
    section("OPTIONS", options.map(rowOf)),
    `EXAMPLES\n\n${examples.map(([line, explanation]) => `  ${explanation}\n    ${line}`).join("\n\n")}`,
  ].join("\n\n");
}

function isRequired(argument: Argument): boolean {
  return argument.type === "positional" && argument.required;
}

function rowOf([name, argument]: readonly [string, Argument]): Row {
  const shown = argument.type === "positional" ? name.toUpperCase() : `--${name}`;
  const hint = "valueHint" in argument ? `=<${argument.valueHint}>` : "";
  const note = isRequired(argument) ? " (Required)" : "default" in argument ? ` (Default: ${argument.default})` : "";
  return [`${shown}${hint}`, `${argument.description}${note}`];
}

function usage(commandLine: string): string {
  return `${head("USAGE")} ${styled("cyan", commandLine)}`;
}

function section(title: string, rows: readonly Row[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, description]) => `  ${styled("cyan", name.padStart(width))}    ${description}`);
  return `${head(title)}\n\n${lines.join("\n")}`;
}

function head(title: string): string {
  return styled(["underline", "bold"], title);
}
