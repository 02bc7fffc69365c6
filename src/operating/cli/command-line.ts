/** Definition of a command, and the parser of its arguments. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { HawserError, suggestOption } from "../../foundation/errors/index.js";

/** Argument of a command: a flag without a value, an option with a value, or an argument that its place identifies. */
export type Argument =
  | { readonly type: "boolean"; readonly description: string }
  | {
      readonly type: "string";
      readonly valueHint: string;
      readonly description: string;
      readonly default?: string;
      /** True if the option may be given several times. */
      readonly multiple?: boolean;
    }
  | {
      readonly type: "positional";
      readonly required: boolean;
      readonly valueHint?: string;
      readonly description: string;
      /** True for the last argument if it takes any number of values. */
      readonly multiple?: boolean;
    };

/** Flag without a value. */
export function flag(description: string) {
  return { type: "boolean", description } as const;
}

/** Option with a value. @param valueHint value as the help shows it, such as `NAME` */
export function option<const More extends { readonly default?: string; readonly multiple?: true }>(
  valueHint: string,
  description: string,
  more: More = {} as More,
) {
  return { type: "string", valueHint, description, ...more } as const;
}

/** Argument that its place identifies, and that must be given. */
export function required<const More extends PlaceOptions>(description: string, more: More = {} as More) {
  return { type: "positional", required: true, description, ...more } as const;
}

/** Argument that its place identifies, and that can be left out. */
export function optional<const More extends PlaceOptions>(description: string, more: More = {} as More) {
  return { type: "positional", required: false, description, ...more } as const;
}

interface PlaceOptions {
  readonly valueHint?: string;
  readonly multiple?: true;
}

/** Arguments of a command by name. The help lists them in this order. */
export type Arguments = Readonly<Record<string, Argument>>;

type ValueOf<One extends Argument> = One extends { readonly multiple: true }
  ? readonly string[]
  : One extends { readonly type: "boolean" }
    ? boolean
    : string;

/** Arguments that always have a value. */
type Present =
  | { readonly type: "positional"; readonly required: true }
  | { readonly type: "positional"; readonly multiple: true }
  | { readonly default: string };

/** Values of arguments as given on the command line. */
export type Given<Args extends Arguments> = {
  readonly [Name in keyof Args as Args[Name] extends Present ? Name : never]: ValueOf<Args[Name]>;
} & {
  readonly [Name in keyof Args as Args[Name] extends Present ? never : Name]?: ValueOf<Args[Name]> | undefined;
};

/** Values of any command. */
export type Values = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** Command lines and their explanations. */
type Examples = readonly (readonly [commandLine: string, explanation: string])[];

/** Command with the texts of its help. */
export interface Command<Args extends Arguments = Arguments, Of = Values> {
  /** Sentences that follow the summary in the command's own help. */
  readonly details?: string;
  readonly args: Args;
  /** @param rawArgs arguments as given, behind the command */
  run(given: Of, rawArgs: readonly string[]): Promise<void> | void;
  readonly examples: Examples;
}

/** Types the values that `run` gets by the arguments of the command. */
export function defineCommand<const Args extends Arguments>(command: Command<Args, Given<Args>>): Command {
  return command as unknown as Command;
}

/**
 * Values of the arguments.
 *
 * @param command name of the command
 * @throws HawserError `invalid_argument` if the arguments do not fit the command
 */
export function parseArguments(command: string, definition: Arguments, rawArgs: readonly string[]): Values {
  const { values, positionals } = parse(command, optionsOf(definition), rawArgs);
  const places = Object.entries(definition).flatMap(([name, argument]) =>
    argument.type === "positional" ? [{ name, ...argument }] : [],
  );
  const missing = places.slice(positionals.length).find(({ required }) => required);
  if (missing !== undefined) {
    throw new HawserError(
      "invalid_argument",
      `\`hawser ${command}\` needs ${missing.name.toUpperCase()}. ${seeHelp(command)}`,
    );
  }
  const surplus = positionals[places.length];
  if (surplus !== undefined && places.at(-1)?.multiple !== true) {
    throw new HawserError(
      "invalid_argument",
      `\`hawser ${command}\` takes ${places.length || "no"} argument${places.length === 1 ? "" : "s"} ` +
        `beside its flags, and "${surplus}" is one more.${whereUrlsBelong(surplus)} ${seeHelp(command)}`,
    );
  }
  const placed = places.map(({ name, multiple }, at) => [name, multiple ? positionals.slice(at) : positionals[at]]);
  return { ...values, ...Object.fromEntries(placed) };
}

/**
 * Joins a negative number to the option before it, as the option's value. The option's range then refuses it, which is
 * more helpful than an error about an unknown flag.
 */
export function withNegativeNumbers(definition: Arguments, rawArgs: readonly string[]): string[] {
  const takesValue = (argument: string) =>
    argument.startsWith("--") &&
    Object.hasOwn(definition, argument.slice(2)) &&
    definition[argument.slice(2)]!.type === "string";
  const joined: string[] = [];
  for (const [index, argument] of rawArgs.entries()) {
    if (argument === "--") return [...joined, ...rawArgs.slice(index)];
    const last = joined.at(-1);
    if (last !== undefined && takesValue(last) && /^-\d/.test(argument)) joined.splice(-1, 1, `${last}=${argument}`);
    else joined.push(argument);
  }
  return joined;
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

/**
 * Refuses a flag that only other actions take.
 *
 * @param flags the flags of each action, without those that all actions take
 * @throws HawserError `invalid_argument`
 */
export function refuseForeignFlags(
  command: string,
  action: string,
  flags: Readonly<Record<string, readonly string[]>>,
  given: Readonly<Record<string, unknown>>,
): void {
  const foreign = Object.values(flags)
    .flat()
    .find((flag) => given[flag] !== undefined && !flags[action]?.includes(flag));
  if (foreign === undefined) return;
  const owners = Object.keys(flags).filter((name) => flags[name]!.includes(foreign));
  throw refusal(command, action, `--${foreign} goes with ${owners.join(" and ")}`);
}

/** Hint for a misplaced database URL; empty for any other argument. */
export function whereUrlsBelong(argument: string): string {
  return /^postgres(?:ql)?:\/\//i.test(argument) ? " Give a database URL with --database-url." : "";
}

type Options = NonNullable<ParseArgsConfig["options"]>;

function optionsOf(definition: Arguments): Options {
  const options: Options = { help: { type: "boolean", short: "h" } };
  for (const [name, argument] of Object.entries(definition)) {
    if (argument.type === "boolean") options[name] = { type: "boolean" };
    if (argument.type !== "string") continue;
    const { multiple = false, default: byDefault } = argument;
    options[name] = { type: "string", multiple, ...(byDefault !== undefined && { default: byDefault }) };
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
