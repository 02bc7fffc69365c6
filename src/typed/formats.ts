/**
 * The formats that rules name, as patterns that JavaScript, Postgres and RE2 read alike.
 */

/** A format. */
export interface FormatPattern {
  /** What the whole string matches, in the dialect of pattern.ts. */
  readonly pattern: string;
  /** What it must not match. */
  readonly butNot?: string;
  /** How many characters it may have. */
  readonly maxLength?: number;
}

const label = "[0-9A-Za-z](?:[-0-9A-Za-z]{0,61}[0-9A-Za-z])?";
const octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const identifier = "[A-Za-z_][A-Za-z_0-9]*";
const hex = (digits: number): string => `[0-9a-fA-F]{${digits}}`;

/** By the names of the rules. */
export const formatPatterns = {
  email: { pattern: `^[a-zA-Z0-9.!#$%&'*+/=?^_\`{|}~\\-]+@${label}(?:\\.${label})*$` },
  hostname: {
    pattern: `^(?:${label}\\.)*${label}\\.?$`,
    // The last label is no number: that would be an address.
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

/** The name of a format's rule. */
export type FormatName = keyof typeof formatPatterns;
