/**
 * The help texts, in plain text when they do not go to a terminal.
 */
import { stripVTControlCharacters } from "node:util";
import { renderUsage } from "citty";
import { version } from "../files/index.js";
import { type AnyCommand, commands } from "./commands.js";
import { examplesText } from "./examples.js";

const SUMMARY = "Messaging for applications that already run Postgres and NATS";

/** The text of `hawser --help`: of each command the first sentence. */
export async function overview(): Promise<string> {
  const subCommands: Record<string, AnyCommand> = {};
  for (const [name, load] of Object.entries(commands)) {
    const { meta } = (await load()) as { readonly meta: { readonly description: string } };
    subCommands[name] = { meta: { description: meta.description.split(". ")[0]! } };
  }
  return renderUsage({ meta: { name: "hawser", description: SUMMARY, version }, subCommands });
}

/** The text of `hawser <command> --help`. */
export async function commandHelp(command: AnyCommand): Promise<string> {
  const usage = await renderUsage(command, { meta: { name: "hawser", version } });
  return `${usage.trimEnd()}\n\n${examplesText(command)}`;
}

/** Writes text and a line's end to the stream, without colours where nobody would see them. */
export function print(stream: NodeJS.WriteStream, text: string): void {
  const plain = !stream.isTTY || Boolean(process.env["NO_COLOR"]);
  // citty pads its columns to the end of the line.
  const lines = (plain ? stripVTControlCharacters(text) : text).split("\n").map((line) => line.trimEnd());
  stream.write(`${lines.join("\n").trimEnd()}\n`);
}
