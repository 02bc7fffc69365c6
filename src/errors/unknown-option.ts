/** Refuses unknown options, because a misspelt option must not be ignored silently. */
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
  const close = suggestOption(unknown, inLowerCase, longestGuessed);
  const guess = close === undefined ? "the" : `did you mean ${known[inLowerCase.indexOf(close)]}? The`;
  return `${JSON.stringify(unknown)} is not an option of ${of}; ${guess} options are ${known.join(", ")}`;
}

/** Property names of a type; the compiler requires each of them. */
export function namesOf<Options extends object>(names: Readonly<Record<keyof Options, true>>): readonly string[] {
  return Object.keys(names);
}
