/** Dispatch from the command line to a command and its exit status. */
import { type ArgsDef, type CommandDef, renderUsage, runCommand } from "citty";
import { exitStatusOf, HawserError } from "../errors/index.js";
import { version } from "../files/index.js";
import {
  checkArguments,
  didYouMean,
  examplesText,
  seeHelp,
  whereUrlsBelong,
  withNegativeNumbers,
} from "./command-line.js";
import { namingDefaults } from "./options.js";
import { describeError, print } from "./output.js";

/**
 * Runs the command that the arguments name and resolves with the exit status: 0, or the status of the error's code.
 * Errors go to standard error; standard output has only the requested output.
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
    throw new HawserError("invalid_argument", "No command is given. Name one of the commands above.");
  }
  if (name === "--help" || name === "-h") return print(process.stdout, await overview());
  if (name === "--version" || name === "-v") return print(process.stdout, version);
  const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (load === undefined) {
    const what = name.startsWith("-") ? `There is no flag ${name} before the command` : `There is no command "${name}"`;
    const known = Object.keys(commands);
    const hint = name.startsWith("-") ? "" : didYouMean(name, known, "`hawser ").replace(/\?$/, "`?");
    throw new HawserError(
      "invalid_argument",
      `${what}.${hint}${whereUrlsBelong(name)} The commands are ${known.join(", ")}. ${seeHelp()}`,
    );
  }
  const command = await load();
  const definition = (command.args ?? {}) as ArgsDef;
  const rest = withNegativeNumbers(definition, given);
  // After `--`, everything is an argument, even if it looks like a flag.
  const flags = rest.slice(0, rest.includes("--") ? rest.indexOf("--") : undefined);
  if (flags.includes("--help") || flags.includes("-h")) return print(process.stdout, await commandHelp(command));
  checkArguments(name, definition, rest);
  try {
    await runCommand(command, { rawArgs: rest });
  } catch (error) {
    throw namingDefaults(error, definition, rest);
  }
}

/** Command with any arguments. */
// biome-ignore lint/suspicious/noExplicitAny: citty's own type for a command among others (its SubCommandsDef).
export type AnyCommand = CommandDef<any>;

/**
 * Commands by name. To add one: write it in a file of its own, like `secret.ts`, and add its loader here. Each command
 * is loaded when it is run, so that `hawser send` does not load the dependencies of `dev`.
 */
export const commands: Readonly<Record<string, () => Promise<AnyCommand>>> = {
  dev: async () => (await import("./dev.js")).dev,
  init: async () => (await import("./init.js")).init,
  uninstall: async () => (await import("./uninstall.js")).uninstall,
  extension: async () => (await import("./extension.js")).extension,
  serve: async () => (await import("./serve.js")).serve,
  send: async () => (await import("./send.js")).send,
  request: async () => (await import("./request.js")).request,
  listen: async () => (await import("./listen.js")).listen,
  topics: async () => (await import("./topics.js")).topics,
  peers: async () => (await import("./peers.js")).peers,
  pending: async () => (await import("./pending.js")).pending,
  secret: async () => (await import("./secret.js")).secret,
  outbox: async () => (await import("./outbox.js")).outbox,
  schedules: async () => (await import("./schedules.js")).schedules,
  streams: async () => (await import("./streams.js")).streams,
  dead: async () => (await import("./dead.js")).dead,
  page: async () => (await import("./page.js")).page,
  top: async () => (await import("./top.js")).top,
  doctor: async () => (await import("./doctor.js")).doctor,
};

const summary = "Messaging for applications that already run Postgres and NATS";

/** Text of `hawser --help`, with the first sentence of each command. */
async function overview(): Promise<string> {
  const subCommands: Record<string, AnyCommand> = {};
  for (const [name, load] of Object.entries(commands)) {
    const { meta } = (await load()) as { readonly meta: { readonly description: string } };
    subCommands[name] = { meta: { description: meta.description.split(". ")[0]! } };
  }
  return renderUsage({ meta: { name: "hawser", description: summary, version }, subCommands });
}

/** Text of `hawser <command> --help`. */
async function commandHelp(command: AnyCommand): Promise<string> {
  const usage = await renderUsage(command, { meta: { name: "hawser", version } });
  return `${usage.trimEnd()}\n\n${examplesText(command)}`;
}
