/** Checks of what users pass: options and arguments. A misspelt option must not be ignored silently. */
import type { CheckedSettings, Violation } from "../../../generated/ts/rules/violation.js";
import { HawserError } from "./hawser-error.js";
import { suggestOption } from "./suggestion.js";

/** Length beyond which a name gets no suggestion. */
const longestGuessed = 100;

/**
 * Returns a message about the first unknown name in an object of options, with a suggestion and the known names;
 * undefined if all names are known. The caller throws the message with its own error code.
 *
 * @param of owner of the options, with an article: "a Peer"
 */
export function unknownOption(options: object, of: string, known: readonly string[]): string | undefined {
  if (typeof options !== "object" || options === null)
    return `the options of ${of} must be an object; they are ${known.join(", ")}`;
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return undefined;
  const inLowerCase = known.map((name) => name.toLowerCase());
  const close =
    suggestOption(unknown, inLowerCase, longestGuessed) ?? inLowerCase.find((name) => shortens(unknown, name));
  const guess = close === undefined ? "the" : `did you mean ${known[inLowerCase.indexOf(close)]}? The`;
  return `${JSON.stringify(unknown)} is not an option of ${of}; ${guess} options are ${known.join(", ")}`;
}

/** True if a name of two characters at least is a longer one without some of its characters, as `tz` of `timezone`. */
function shortens(short: string, name: string): boolean {
  if (short.length < 2 || short[0] !== name[0]) return false;
  let at = 0;
  for (const character of name) if (character === short[at]) at += 1;
  return at === short.length;
}

/** @throws HawserError `invalid_argument` for the first unknown option, as {@link unknownOption} */
export function checkOptionNames(options: object, of: string, known: readonly string[]): void {
  const problem = unknownOption(options, of, known);
  if (problem !== undefined) throw invalidArgument(problem);
}

/**
 * Property names of a type; the compiler requires each of them. The values do not matter, so that the defaults of the
 * settings among them can be spread.
 */
export function namesOf<Options extends object>(names: Readonly<Record<keyof Options, unknown>>): readonly string[] {
  return Object.keys(names);
}

/** Error with the code `invalid_argument`. @param message what was given, the rule and the remedy */
export function invalidArgument(message: string, cause?: unknown): HawserError {
  return new HawserError("invalid_argument", message, { cause });
}

/**
 * Refuses a value that breaks a rule of the spec.
 *
 * @param argument name in the message; default: the path of the value
 * @throws HawserError `invalid_argument` with the value, the rule and the remedy
 */
export function refuse(broken: Violation | undefined, argument?: string): void {
  if (broken !== undefined) throw invalidValue(broken, argument);
}

/**
 * Settings that were checked.
 *
 * @param prefix prefix of the names of the settings in errors
 * @throws HawserError `invalid_argument` if one breaks a rule
 */
export function checkedSettings<Settings>(checked: CheckedSettings<Settings>, prefix = ""): Settings {
  if (checked.ok) return checked.settings;
  throw invalidValue(checked.violation, `${prefix}${checked.violation.path}`);
}

function invalidValue({ path, value, rule, remedy }: Violation, argument = path): HawserError {
  return invalidArgument(`${argument} ${value}: ${rule}. ${remedy}`);
}
