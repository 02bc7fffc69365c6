import { inspect } from "node:util";

/** ASCII only, because a database may have another encoding than UTF-8. */
const ellipsis = "...";

/**
 * Shortens a text to at most `maxBytes` of UTF-8; a longer text is cut and ends with "...". The result is always
 * well-formed: an unpaired surrogate, such as from a text that was cut within an emoji, becomes U+FFFD.
 */
export function shortened(text: string, maxBytes: number): string {
  // Characters beyond this length cannot fit, and the rest may be very long.
  const bytes = Buffer.from(text.slice(0, maxBytes + 1));
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes - Buffer.byteLength(ellipsis);
  // Moves back to the start of a character: continuation bytes of UTF-8 begin with the bits 10.
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end) + ellipsis;
}

/**
 * Message of a thrown value, which can be any value, even one whose properties throw. A value that is no error and no
 * text is shown as `util.inspect` shows it, one level deep.
 */
export function errorMessageOf(thrown: unknown): string {
  try {
    if (thrown instanceof Error) return String(thrown.message);
    return typeof thrown === "string" ? thrown : `a value that is no error: ${inspect(thrown, shownThrown)}`;
  } catch {
    return "a value that cannot be shown";
  }
}

const shownThrown = { depth: 1, breakLength: Number.POSITIVE_INFINITY, maxArrayLength: 10, maxStringLength: 200 };

/**
 * Masks user and password in each URL of a text, and values after `password=`, with `***`. Takes time in proportion to
 * the text, because others may have chosen it.
 */
export function withoutPasswords(text: string): string {
  return (
    text
      // A password that is not percent-encoded may contain any character, so everything up to the last @ of the line is
      // masked.
      .replace(/^.*@/gm, (line) => line.replace(/\b(postgres(?:ql)?:\/\/)[^@\s:]*:.*@$/i, "$1***@"))
      .replace(/([a-z0-9+.-]:\/\/)[^\s/@:]*:[^\s/@]*@/gi, "$1***@")
      // Also with the quotes, spaces and backslashes of libpq's keywords.
      .replace(
        /\b((?:ssl)?password\s{0,8}=\s{0,8})(?:'(?:[^'\\]|\\[\s\S])*'?|(?:[^&\s"'\\]|\\[\s\S])(?:[^&\s"\\]|\\[\s\S])*)/gi,
        "$1***",
      )
  );
}

/** Duration in words, for people. */
export function ago(seconds: number): string {
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
  ] as const;
  const [unit, length] = units.find(([, unitSeconds]) => seconds >= 2 * unitSeconds) ?? (["s", 1] as const);
  return `${Math.max(0, Math.floor(seconds / length))} ${unit}`;
}

/** `1 message`, `2 messages`. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Text as one word of a shell: names come from users, and remedies are pasted. */
export function shellWord(text: string): string {
  return /^[\w.][\w.-]*$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Greatest length of a quoted text, in UTF-16 units. */
const quotedUnits = 60;

/** Text of a user in quotation marks; of a longer one the beginning, and its size. */
export function quoted(text: string): string {
  return text.length <= quotedUnits
    ? JSON.stringify(text)
    : `${JSON.stringify(text.slice(0, quotedUnits))}… (${Buffer.byteLength(text)} bytes)`;
}
