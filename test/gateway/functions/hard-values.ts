/**
 * Values that are easy to get wrong on the way from Postgres to NATS and back.
 */

const one = (name: string, text: string) => ({ name, text });

/** Texts. Postgres has no NUL in a text. */
export const texts = [
  one("empty", ""),
  one("one space", " "),
  one("white space at its ends and in between", " \t a \n\n b \r\n \u00a0\u2003 "),
  one("an emoji beyond the first plane, with its skin and its joiner", "\u{1f469}\u{1f3fd}\u200d\u{1f680}"),
  one("combining marks, not composed", "e\u0301 a\u0308\u0323 \u0301"),
  one("the same text composed and not", "\u00e9 e\u0301"),
  one("right to left, with its marks", "\u202eabc\u202c \u05d0\u05d1 \u200f"),
  one("a byte order mark at the start, in the middle and at the end", "\ufeffa\ufeffb\ufeff"),
  one("what is no character: U+FFFE, U+FFFF, U+FDD0, U+1FFFE, U+10FFFF", "\ufffe\uffff\ufdd0\u{1fffe}\u{10ffff}"),
  one("the replacement character", "\ufffd"),
  one(
    "all control characters",
    String.fromCharCode(...Array.from({ length: 31 }, (_, code) => code + 1), 127, 128, 159),
  ),
  one("line separators of JavaScript", "a\u2028b\u2029c"),
  one("quotes, backslashes and dollars of SQL", "'\"\\ \\' '' $1 $$ $a$ :name ?"),
  one("what looks like an escape", "\\x41 \\u0041 \\n \\000 &amp; %41"),
  one("what looks like NULL", "NULL"),
  one("what looks like a call", 'Publish {"subject":"x"}\nt1\nx'),
  one("as long as 200,000 characters of four bytes", "\u{1f6f3}".repeat(200_000)),
];

/** Each character that can be in a text, three planes at once: all but NUL and halves of surrogate pairs. */
export function* allCharacters(): Generator<string> {
  let text = "";
  for (let code = 1; code <= 0x10ffff; code++) {
    if (code < 0xd800 || code > 0xdfff) text += String.fromCodePoint(code);
    if (code % 0x30000 !== 0 && code !== 0x10ffff) continue;
    yield text;
    text = "";
  }
}

/** Texts of JSON, and what jsonb makes of them; without it, jsonb cannot hold them. */
export const jsonTexts: readonly { readonly name: string; readonly json: string; readonly jsonb?: string }[] = [
  { name: "an object", json: '{"key": "value"}', jsonb: '{"key": "value"}' },
  { name: "white space everywhere", json: ' \n{ "a"\t:\r\n[ 1 , 2 ] } \t', jsonb: '{"a": [1, 2]}' },
  { name: "keys that come twice, in their order", json: '{"b":1,"a":2,"b":3}', jsonb: '{"a": 2, "b": 3}' },
  { name: "null", json: "null", jsonb: "null" },
  { name: "a string", json: '"x"', jsonb: '"x"' },
  { name: "an empty string", json: '""', jsonb: '""' },
  {
    name: "an integer of 30 digits",
    json: "123456789012345678901234567890",
    jsonb: "123456789012345678901234567890",
  },
  { name: "a number beyond what a double holds", json: "1e400", jsonb: `1${"0".repeat(400)}` },
  { name: "a fraction of 50 digits", json: `0.${"1234567890".repeat(5)}`, jsonb: `0.${"1234567890".repeat(5)}` },
  { name: "zeros that count", json: "[1.00, 1.0e2, 100]", jsonb: "[1.00, 100, 100]" },
  { name: "minus zero", json: "[-0, -0.0]", jsonb: "[0, 0.0]" },
  { name: "a number that no numeric holds", json: "1e999999" },
  {
    name: "escapes that need not be",
    json: '["\\u0041\\u00e4\\/","\\ud83d\\udef3","\\b\\f"]',
    jsonb: '["Aä/", "\u{1f6f3}", "\\b\\f"]',
  },
  { name: "an escaped NUL", json: '["\\u0000"]' },
  { name: "half of a surrogate pair, escaped", json: '["\\ud83d"]' },
  {
    name: "all of Unicode, not escaped",
    json: '{"ä漢\u{1f6f3}": "\ufeff\ufffe\u2028"}',
    jsonb: '{"ä漢\u{1f6f3}": "\ufeff\ufffe\u2028"}',
  },
  {
    name: "arrays in arrays",
    json: `${"[".repeat(500)}${"]".repeat(500)}`,
    jsonb: `${"[".repeat(500)}${"]".repeat(500)}`,
  },
  {
    name: "the names of JavaScript",
    json: '{"__proto__": {"a": 1}, "constructor": 1}',
    jsonb: '{"__proto__": {"a": 1}, "constructor": 1}',
  },
];
