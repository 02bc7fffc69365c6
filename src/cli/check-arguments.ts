/**
 * The strict half of parsing. citty takes what it does not know as it comes; a mistyped flag that is silently ignored
 * is worse than a refusal.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";
import type { ArgsDef } from "citty";
import { CliError } from "../errors/index.js";

/** Throws `invalid_argument` if the arguments do not fit the command's definition. */
export function checkArguments(command: string, definition: ArgsDef, rawArgs: readonly string[]): void {
  const options: NonNullable<ParseArgsConfig["options"]> = { help: { type: "boolean", short: "h" } };
  let positionalsAllowed = 0;
  for (const [name, argument] of Object.entries(definition)) {
    if (argument.type === "positional") {
      positionalsAllowed++;
      continue;
    }
    const aliases = "alias" in argument ? [argument.alias ?? []].flat() : [];
    const short = aliases.find((alias) => alias.length === 1);
    const type = argument.type === "boolean" ? "boolean" : "string";
    options[name] = { type, ...(short !== undefined && { short }) };
  }
  const { positionals } = parse(command, options, rawArgs);
  const surplus = positionals[positionalsAllowed];
  if (surplus !== undefined) {
    throw new CliError(
      "invalid_argument",
      `\`hawser ${command}\` takes ${positionalsAllowed || "no"} argument${positionalsAllowed === 1 ? "" : "s"} ` +
        `beside its flags, and "${surplus}" is one more. ${seeHelp(command)}`,
    );
  }
}

/** Where the reader finds what is allowed. */
export function seeHelp(command?: string): string {
  return `See \`hawser ${command === undefined ? "" : `${command} `}--help\`.`;
}

function parse(command: string, options: NonNullable<ParseArgsConfig["options"]>, rawArgs: readonly string[]) {
  try {
    return parseArgs({ args: [...rawArgs], options, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's messages name the flag and what is wrong with it, then go on about how to pass positionals like "-x".
    const [what] = (error as Error).message.split(/\.? To specify|\. Did you/);
    const flags = Object.keys(options).map((name) => `--${name}`);
    throw new CliError(
      "invalid_argument",
      `\`hawser ${command}\`: ${what!.replace(/\.$/, "")}. Its flags are ${flags.join(", ")}. ${seeHelp(command)}`,
    );
  }
}
