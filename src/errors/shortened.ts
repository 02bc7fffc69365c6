/** Of ASCII alone: a database need not be in UTF-8. */
const ellipsis = "...";

/** The text, in at most so many bytes of UTF-8; one that is longer ends with "..." instead of the rest. */
export function shortened(text: string, maxBytes: number): string {
  // What is behind so many characters cannot fit, and may be very long.
  const bytes = Buffer.from(text.slice(0, maxBytes + 1));
  if (bytes.length <= maxBytes) return text;
  let end = maxBytes - Buffer.byteLength(ellipsis);
  // Not within a character: its later bytes begin with the bits 10.
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end) + ellipsis;
}
