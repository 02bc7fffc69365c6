/**
 * How option strings are read, once for TypeScript and SQL. All patterns keep to what JavaScript and Postgres read
 * alike (see src/typed/pattern.ts).
 */

/** What Postgres trims around a boolean: the white space of C's isspace. */
const space = "[\\u0009-\\u000d\\u0020]*";

/** The spellings of `boolin` in Postgres, with every prefix that is not ambiguous ("o" is). */
const booleanSpellings = { true: ["true", "yes", "on", "1"], false: ["false", "no", "off", "0"] };

/** Matches a text that means `value`: any spelling of Postgres in any case, trimmed. */
export function booleanPattern(value: boolean): string {
  const spellings = booleanSpellings[value ? "true" : "false"].map((spelling) => {
    const shortest = spelling.startsWith("o") ? 2 : 1;
    return prefixesOf(spelling, shortest);
  });
  return `^${space}(?:${spellings.join("|")})${space}$`;
}

/**
 * Matches a whole number in decimal digits, trimmed, with the sign as its first group and the digits, without leading
 * zeros, as its second. This is what every Postgres from 14 on takes; its newer `0x10` and `1_000`, and `1e3`, are not
 * in it.
 */
export const integerPattern = `^${space}([+-]?)0*([0-9]+)${space}$`;

/** Numbers beyond ±{@link farNumber} count as ±farNumber, which is outside every range an option may have. */
export const farNumber = Number.MAX_SAFE_INTEGER;

/** With more digits than this a number counts as far, so that no text is too long to be read. */
export const maxDigits = 15;

/** A name longer than this gets no suggestion: no option's name is as long, and the search is quadratic. */
export const maxSuggestedLength = 63;

/** Values are shown up to this many characters. */
export const maxShownLength = 60;

/** `(?:[tT](?:[rR](?:[uU](?:[eE])?)?)?)` and the like: the word and its prefixes, in any case. */
function prefixesOf(word: string, shortest: number): string {
  const letters = [...word].map((letter) =>
    letter.toUpperCase() === letter ? letter : `[${letter}${letter.toUpperCase()}]`,
  );
  const required = letters.slice(0, shortest).join("");
  const optional = letters.slice(shortest).reduceRight((rest, letter) => `(?:${letter}${rest})?`, "");
  return required + optional;
}
