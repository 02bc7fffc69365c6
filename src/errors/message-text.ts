/** Of ASCII alone: a database need not be in UTF-8. */
const ellipsis = "...";

/**
 * The text, in at most so many bytes of UTF-8; one that is longer ends with "..." instead of the rest. Always well-formed: half
 * of a surrogate pair, such as where somebody has cut a text within an emoji, becomes U+FFFD.
 */
export function shortened(text: string, maxBytes: number): string {
  // What is behind so many characters cannot fit, and may be very long.
  const bytes = Buffer.from(text.slice(0, maxBytes + 1));
  if (bytes.length <= maxBytes) return bytes.toString();
  let end = maxBytes - Buffer.byteLength(ellipsis);
  // Not within a character: its later bytes begin with the bits 10.
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end) + ellipsis;
}

/** The text, with `***` for user and password of each URL in it, and for what follows `password=`. */
export function withoutPasswords(text: string): string {
  return (
    text
      // A password that is not percent-encoded may hold anything, so up to the last @ of the line.
      .replace(/\b(postgres(?:ql)?:\/\/)[^@\s]*:.*@/gi, "$1***@")
      .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@:]*:[^\s/@]*@/gi, "$1***@")
      .replace(/\b((?:ssl)?password=)[^&\s"']+/gi, "$1***")
  );
}

/** A time that has passed, for people. */
export function ago(seconds: number): string {
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
  ] as const;
  const [unit, length] = units.find(([, unitSeconds]) => seconds >= 2 * unitSeconds) ?? (["s", 1] as const);
  return `${Math.max(0, Math.floor(seconds / length))} ${unit}`;
}
