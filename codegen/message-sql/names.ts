/** Names and literals of the SQL that is generated from users' messages. */

/** Postgres truncates longer identifiers without an error. */
export const maxIdentifierBytes = 63;

/** Quoted identifier, so that key words of SQL are valid names too. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** `OrderPlaced` → `order_placed`, `HTTPRequest2` → `http_request2`. */
export function snakeCase(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1_$2")
    .toLowerCase();
}

/** Bytes as a constant that is independent of `standard_conforming_strings`: `E'\\x0a00'::bytea`. */
export function bytesLiteral(bytes: Iterable<number>): string {
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `E'\\\\x${hex}'::bytea`;
}

/** Bytes of a small number as a varint, such as a tag. */
export function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

/** Indents every line of a text but the first by `spaces`. */
export function indented(spaces: number, text: string): string {
  return text.replaceAll(/\n(?=[^\n])/g, `\n${" ".repeat(spaces)}`);
}
