/** Names and literals of the SQL that is made of users' messages. */

/** Postgres cuts longer identifiers off, silently. */
export const maxIdentifierBytes = 63;

/** An identifier in quotes, so that words of SQL's grammar are names, too. */
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

/** Bytes as a constant, whatever `standard_conforming_strings` is: `E'\\x0a00'::bytea`. */
export function bytesLiteral(bytes: Iterable<number>): string {
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `E'\\\\x${hex}'::bytea`;
}

/** A varint of a small number, such as a tag. */
export function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

/** The text, each line behind the first with so many spaces before it. */
export function indented(spaces: number, text: string): string {
  return text.replaceAll(/\n(?=[^\n])/g, `\n${" ".repeat(spaces)}`);
}
