/**
 * The help texts, in plain text when they do not go to a terminal.
 */
import { readFileSync } from "node:fs";
import { stripVTControlCharacters } from "node:util";
import { renderUsage } from "citty";
import { type AnyCommand, commands, plannedCommands } from "./commands.js";

const SUMMARY = "Messaging for applications that already run Postgres and NATS";

/** The text of `hawser --help`: of each command the first sentence. */
export async function overview(): Promise<string> {
  const subCommands: Record<string, AnyCommand> = {};
  for (const [name, load] of Object.entries(commands)) {
    const { meta } = (await load()) as { readonly meta: { readonly description: string } };
    subCommands[name] = { meta: { description: meta.description.split(". ")[0]! } };
  }
  for (const [name, description] of Object.entries(plannedCommands)) {
    subCommands[name] = { meta: { description: `${description} (not built yet)` } };
  }
  return renderUsage({ meta: { name: "hawser", description: SUMMARY, version: version() }, subCommands });
}

/** The text of `hawser <command> --help`. */
export async function commandHelp(command: AnyCommand): Promise<string> {
  return renderUsage(command, { meta: { name: "hawser", version: version() } });
}

/** Writes text and a line's end to the stream, without colours where nobody would see them. */
export function print(stream: NodeJS.WriteStream, text: string): void {
  const plain = !stream.isTTY || Boolean(process.env["NO_COLOR"]);
  // citty pads its columns to the end of the line.
  const lines = (plain ? stripVTControlCharacters(text) : text).split("\n").map((line) => line.trimEnd());
  stream.write(`${lines.join("\n").trimEnd()}\n`);
}

/** The version of the package this file belongs to. */
export function version(): string {
  // From source the package is two directories up, compiled it is three.
  for (const up of ["../../package.json", "../../../package.json"]) {
    const found = readPackage(new URL(up, import.meta.url));
    if (found?.name === "hawser") return found.version;
  }
  return "unknown";
}

function readPackage(url: URL): { name: string; version: string } | undefined {
  try {
    return JSON.parse(readFileSync(url, "utf8")) as { name: string; version: string };
  } catch {
    return undefined;
  }
}
