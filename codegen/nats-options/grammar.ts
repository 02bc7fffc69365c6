/**
 * Grammar of option strings, shared by TypeScript and SQL. All patterns keep to the syntax that JavaScript and Postgres
 * interpret alike (see src/typed/pattern.ts).
 */

/** White space that Postgres trims around a boolean: C's isspace. */
const space = "[\\u0009-\\u000d\\u0020]*";

/** Spellings of `boolin` in Postgres, with every unambiguous prefix ("o" is ambiguous). */
const booleanSpellings = { true: ["true", "yes", "on", "1"], false: ["false", "no", "off", "0"] };

/** Matches the texts for `value`: every spelling of Postgres in any case, trimmed. */
export function booleanPattern(value: boolean): string {
  const spellings = booleanSpellings[value ? "true" : "false"].map((spelling) => {
    const shortest = spelling.startsWith("o") ? 2 : 1;
    return prefixesOf(spelling, shortest);
  });
  return `^${space}(?:${spellings.join("|")})${space}$`;
}

/**
 * Matches an integer in decimal digits, trimmed; the first group is the sign, the second the digits without leading
 * zeros. Every Postgres from 14 on accepts these; `0x10` and `1_000` of newer versions, and `1e3`, do not match.
 */
export const integerPattern = `^${space}([+-]?)0*([0-9]+)${space}$`;

/** Numbers beyond ±{@link farNumber} count as ±farNumber, which is outside the range of every option. */
export const farNumber = Number.MAX_SAFE_INTEGER;

/** Maximum number of digits that are read. A number with more counts as {@link farNumber}, so a text can have any length. */
export const maxDigits = 15;

/**
 * Greatest length of a name that gets a suggestion: no option's name is as long, and the search takes quadratic time.
 */
export const maxSuggestedLength = 63;

/** Greatest number of characters that are shown of a value. */
export const maxShownLength = 60;

/** Pattern such as `(?:[tT](?:[rR](?:[uU](?:[eE])?)?)?)`: the word and its prefixes, in any case. */
function prefixesOf(word: string, shortest: number): string {
  const letters = [...word].map((letter) =>
    letter.toUpperCase() === letter ? letter : `[${letter}${letter.toUpperCase()}]`,
  );
  const required = letters.slice(0, shortest).join("");
  const optional = letters.slice(shortest).reduceRight((rest, letter) => `(?:${letter}${rest})?`, "");
  return required + optional;
}
