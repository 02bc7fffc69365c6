/**
 * The subject in the words by which a server refuses a publish. It is quoted as Go quotes (`%q`), which nats.js does not
 * undo, and the refusal of a reply subject has words that it does not know.
 */
import type { Violation } from "./refusals.js";

const refusal = /^Permissions Violation for Publish (?:to|with Reply of) (".*")/i;
const escaped = /\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))/g;
const letters: Readonly<Record<string, string>> = {
  a: "\u0007",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/**
 * The violation that a server reports with these words; undefined if they do not speak of publishing.
 *
 * @param message of the `PermissionViolationError` in a status event of the connection, whole
 */
export function publishViolation(message: string): Violation | undefined {
  const quoted = refusal.exec(message)?.[1];
  if (quoted === undefined) return undefined;
  return { subject: unquote(quoted.slice(1, -1)), message };
}

function unquote(text: string): string {
  return text.replace(escaped, (_all, byte?: string, short?: string, long?: string, letter?: string) => {
    const code = byte ?? short ?? long;
    return code === undefined ? (letters[letter!] ?? letter!) : String.fromCodePoint(Number.parseInt(code, 16));
  });
}
