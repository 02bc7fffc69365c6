/**
 * From the command line to an exit status.
 */
import { type ArgsDef, runCommand } from "citty";
import { CliError, exitStatusOf } from "../errors/index.js";
import { version } from "../files/index.js";
import { checkArguments, didYouMean, seeHelp, withNegativeNumbers } from "./check-arguments.js";
import { commands } from "./commands.js";
import { whereUrlsBelong } from "./conceal.js";
import { namingDefaults } from "./database-option.js";
import { describeError } from "./describe-error.js";
import { commandHelp, overview } from "./help.js";
import { print } from "./output.js";

/**
 * Runs the command that the arguments name and resolves with the exit status: 0, or that of the error's code. Errors go
 * to standard error; standard output has only what was asked for.
 */
export async function runCli(args: readonly string[]): Promise<number> {
  try {
    await dispatch(args);
    return 0;
  } catch (error) {
    print(process.stderr, describeError(error));
    return exitStatusOf(error);
  }
}

async function dispatch(args: readonly string[]): Promise<void> {
  const [name, ...given] = args;
  if (name === undefined) {
    print(process.stderr, await overview());
    throw new CliError("invalid_argument", "No command is given. Name one of the commands above.");
  }
  if (name === "--help" || name === "-h") return print(process.stdout, await overview());
  if (name === "--version" || name === "-v") return print(process.stdout, version);
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (load === undefined) {
    const what = name.startsWith("-") ? `There is no flag ${name} before the command` : `There is no command "${name}"`;
    const known = Object.keys(commands);
    const hint = name.startsWith("-") ? "" : didYouMean(name, known, "`hawser ").replace(/\?$/, "`?");
    throw new CliError(
      "invalid_argument",
      `${what}.${hint}${whereUrlsBelong(name)} The commands are ${known.join(", ")}. ${seeHelp()}`,
    );
  }
  const command = await load();
  const definition = (command.args ?? {}) as ArgsDef;
  const rest = withNegativeNumbers(definition, given);
  // Everything after `--` is an argument, also if it looks like a flag.
  const flags = rest.slice(0, rest.includes("--") ? rest.indexOf("--") : undefined);
  if (flags.includes("--help") || flags.includes("-h")) return print(process.stdout, await commandHelp(command));
  checkArguments(name, definition, rest);
  try {
    await runCommand(command, { rawArgs: rest });
  } catch (error) {
    throw namingDefaults(error, definition, rest);
  }
}
