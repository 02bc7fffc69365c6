/**
 * Strict checks of the command line. citty accepts unknown arguments, and a mistyped flag that is silently ignored is
 * worse than an error.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";
import type { ArgsDef } from "citty";
import { HawserError, suggestOption } from "../errors/index.js";

type Options = NonNullable<ParseArgsConfig["options"]>;

/** Throws `invalid_argument` if the arguments do not fit the command's definition. */
export function checkArguments(command: string, definition: ArgsDef, rawArgs: readonly string[]): void {
  const { positionals } = parse(command, optionsOf(definition), rawArgs);
  const places = Object.entries(definition).filter(([, argument]) => argument.type === "positional");
  const [missing] = places.slice(positionals.length).find(([, { required = true }]) => required) ?? [];
  if (missing !== undefined) {
    throw new HawserError(
      "invalid_argument",
      `\`hawser ${command}\` needs ${missing.toUpperCase()}. ${seeHelp(command)}`,
    );
  }
  const surplus = positionals[places.length];
  // A hint that ends with "…" marks an argument that accepts any number of values.
  const takesMore = places.at(-1)?.[1].valueHint?.endsWith("…") ?? false;
  if (surplus !== undefined && !takesMore) {
    throw new HawserError(
      "invalid_argument",
      `\`hawser ${command}\` takes ${places.length || "no"} argument${places.length === 1 ? "" : "s"} ` +
        `beside its flags, and "${surplus}" is one more.${whereUrlsBelong(surplus)} ${seeHelp(command)}`,
    );
  }
}

/**
 * Joins a negative number to the option before it, as the option's value. The option's range then refuses it, which is
 * more helpful than an error about an unknown flag.
 */
export function withNegativeNumbers(definition: ArgsDef, rawArgs: readonly string[]): string[] {
  const options = optionsOf(definition);
  const takesValue = (argument: string) =>
    argument.startsWith("--") &&
    Object.hasOwn(options, argument.slice(2)) &&
    options[argument.slice(2)]!.type === "string";
  const joined: string[] = [];
  for (const [index, argument] of rawArgs.entries()) {
    if (argument === "--") return [...joined, ...rawArgs.slice(index)];
    const last = joined.at(-1);
    if (last !== undefined && takesValue(last) && /^-\d/.test(argument)) joined.splice(-1, 1, `${last}=${argument}`);
    else joined.push(argument);
  }
  return joined;
}

/** All values of a repeatable option, in their order. The arguments must have passed {@link checkArguments}. */
export function valuesOf(definition: ArgsDef, rawArgs: readonly string[], name: string): string[] {
  const options = optionsOf(definition);
  const { values } = parseArgs({
    args: [...rawArgs],
    options: { ...options, [name]: { type: "string", multiple: true } },
    allowPositionals: true,
  });
  return (values[name] as string[] | undefined) ?? [];
}

/** Sentence that refers to the help. */
export function seeHelp(command?: string): string {
  return `See \`hawser ${command === undefined ? "" : `${command} `}--help\`.`;
}

/** ` Did you mean …?` if one of the known names is close; otherwise empty. */
export function didYouMean(name: string, known: readonly string[], prefix = ""): string {
  const close = suggestOption(name, known, 100);
  return close === undefined ? "" : ` Did you mean ${prefix}${close}?`;
}

/** Action named by an argument of the command. @throws HawserError `invalid_argument` */
export function actionOf<Action extends string>(command: string, text: string, actions: readonly Action[]): Action {
  const action = actions.find((known) => known === text);
  if (action !== undefined) return action;
  const what = `cannot "${text}".${didYouMean(text, actions)} It can ${actions.join(", ")}`;
  throw new HawserError(
    "invalid_argument",
    `\`hawser ${command}\` ${what}.${whereUrlsBelong(text)} ${seeHelp(command)}`,
  );
}

/** Error for arguments that do not fit together. @param action of the command, if it has actions */
export function refusal(command: string, action: string, why: string): HawserError {
  return new HawserError("invalid_argument", `\`hawser ${command} ${action}\`: ${why}. ${seeHelp(command)}`);
}

function optionsOf(definition: ArgsDef): Options {
  const options: Options = { help: { type: "boolean", short: "h" } };
  for (const [name, argument] of Object.entries(definition)) {
    if (argument.type === "positional") continue;
    const aliases = "alias" in argument ? [argument.alias ?? []].flat() : [];
    const short = aliases.find((alias) => alias.length === 1);
    const type = argument.type === "boolean" ? "boolean" : "string";
    options[name] = { type, ...(short !== undefined && { short }) };
  }
  return options;
}

function parse(command: string, options: Options, rawArgs: readonly string[]) {
  try {
    return parseArgs({ args: [...rawArgs], options, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's messages name the flag and the problem, and then explain how to pass positionals like "-x".
    const [what] = (error as Error).message.split(/\n|\.? To specify|\. Did you/);
    const names = Object.keys(options);
    const bare = /^Option '(?:-\w, )?(--[^' ]+)[^']*' argument is ambiguous/.exec(what!)?.[1];
    if (bare !== undefined) {
      throw new HawserError(
        "invalid_argument",
        `\`hawser ${command}\`: ${bare} needs a value, and the next argument begins with a dash; write ${bare}=… if that is its ` +
          `value. ${seeHelp(command)}`,
      );
    }
    const unknown = /^Unknown option '(-[^']*)'/.exec(what!)?.[1];
    const hint = unknown === undefined ? "" : hintFor(unknown, names);
    const flags = names.map((name) => `--${name}`);
    throw new HawserError(
      "invalid_argument",
      `\`hawser ${command}\`: ${what!.replace(/\.$/, "")}.${hint} Its flags are ${flags.join(", ")}. ${seeHelp(command)}`,
    );
  }
}

function hintFor(unknown: string, names: readonly string[]): string {
  if (!unknown.startsWith("--")) return " Write -- before an argument that begins with a dash.";
  return didYouMean(unknown.slice(2).split("=")[0]!, names, "--");
}

/** Command lines, without `hawser` if they begin with the command, and their explanations. */
export type Examples = readonly (readonly [commandLine: string, explanation: string])[];

const examples = Symbol("examples");

/** Attaches examples to a command; citty has no property for them. */
export function withExamples<Command extends object>(command: Command, shown: Examples): Command {
  return Object.defineProperty(command, examples, { value: shown });
}

/** Examples section of the help; empty if the command has none. */
export function examplesText(command: object): string {
  const shown = (command as { readonly [examples]?: Examples })[examples] ?? [];
  if (shown.length === 0) return "";
  const lines = shown.map(([commandLine, explanation]) => `  ${explanation}\n    ${commandLine}\n`);
  return `EXAMPLES\n\n${lines.join("\n")}`;
}

/** Hint for a misplaced database URL; empty for any other argument. */
export function whereUrlsBelong(argument: string): string {
  return /^postgres(?:ql)?:\/\//i.test(argument) ? " Give a database URL with --database-url." : "";
}
