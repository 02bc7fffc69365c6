/** Formats of rules, as patterns that JavaScript, Postgres and RE2 interpret alike. */

export interface FormatPattern {
  /** Pattern that the whole string must match, in the dialect of pattern.ts. */
  readonly pattern: string;
  /** Pattern that the string must not match. */
  readonly butNot?: string;
  /** Maximum number of characters. */
  readonly maxLength?: number;
}

const label = "[0-9A-Za-z](?:[-0-9A-Za-z]{0,61}[0-9A-Za-z])?";
const octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const identifier = "[A-Za-z_][A-Za-z_0-9]*";
const hex = (digits: number): string => `[0-9a-fA-F]{${digits}}`;

/** Patterns by the names of the rules. */
export const formatPatterns = {
  email: { pattern: `^[a-zA-Z0-9.!#$%&'*+/=?^_\`{|}~\\-]+@${label}(?:\\.${label})*$` },
  hostname: {
    pattern: `^(?:${label}\\.)*${label}\\.?$`,
    // The last label must not be a number, as in an IP address.
    butNot: "^(?:[-.0-9A-Za-z]*\\.)?[0-9]+\\.?$",
    maxLength: 253,
  },
  ipv4: { pattern: `^${octet}\\.${octet}\\.${octet}\\.${octet}$` },
  uuid: { pattern: `^${hex(8)}-${hex(4)}-${hex(4)}-${hex(4)}-${hex(12)}$` },
  tuuid: { pattern: `^${hex(32)}$` },
  ulid: { pattern: "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$" },
  protobuf_fqn: { pattern: `^${identifier}(?:\\.${identifier})*$` },
  protobuf_dot_fqn: { pattern: `^(?:\\.${identifier})+$` },
} as const satisfies Readonly<Record<string, FormatPattern>>;

/** Name of a format's rule. */
export type FormatName = keyof typeof formatPatterns;
