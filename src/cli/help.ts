/**
 * The help texts.
 */
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
