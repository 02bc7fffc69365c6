/**
 * Refuses unknown options: one that is misspelt must not be ignored in silence.
 */
import { suggestOption } from "../../generated/ts/nats-options/suggest.js";

/** A longer name is no misspelling. */
const longestGuessed = 100;

/**
 * What is wrong with the names in an object of options, to be thrown by the layer whose options they are: names the first
 * one that is none of `known`, the one that was probably meant, and all that there are. Undefined: all are known.
 *
 * @param of whose options they are, with an article: "a Peer"
 */
export function unknownOption(options: object, of: string, known: readonly string[]): string | undefined {
  if (typeof options !== "object" || options === null)
    return `the options of ${of} must be an object; they are ${known.join(", ")}`;
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return undefined;
  const inLowerCase = known.map((name) => name.toLowerCase());
  const close = suggestOption(unknown, inLowerCase, longestGuessed);
  const guess = close === undefined ? "the" : `did you mean ${known[inLowerCase.indexOf(close)]}? The`;
  return `${JSON.stringify(unknown)} is no option of ${of}; ${guess} options are ${known.join(", ")}`;
}

/** The names of all properties of a type, where the compiler asks for each of them. */
export function namesOf<Options extends object>(names: Readonly<Record<keyof Options, true>>): readonly string[] {
  return Object.keys(names);
}
