import pc from "picocolors";
import { HawserError } from "../errors/index.js";
import { withoutPasswords } from "./conceal.js";
import { printableLines } from "./printable.js";

/** How a message goes on when it has a remedy of its own: after a semicolon, in a further sentence, as a statement. */
const ownRemedy = /[;.] |: (?:run `|GRANT )/;
/** Remedies of the error table that send the reader to the message, or tell programs what to do. */
const pointsElsewhere = /^(?:The message|Read the cause|Nothing)|\brun\(\)|stop\(\)/;

/**
 * An error as a person wants to read it: what happened, its causes, its code. A defect of ours shows its stack. Nothing in
 * it that a terminal obeys, and no password of a URL.
 */
export function describeError(error: unknown): string {
  if (!HawserError.is(error)) {
    const details = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return `${pc.red("hawser:")} ${shown(details)}\nThis is a defect of Hawser. Please report it with the lines above.`;
  }
  const lines = [`${pc.red("hawser:")} ${shown(error.message)} ${pc.dim(`[${error.code}]`)}`];
  for (let cause = error.cause; cause instanceof Error; cause = cause.cause) {
    const text = shown(cause.message.trim());
    // Messages often quote their cause; saying it twice helps nobody.
    if (text !== "" && !lines.some((line) => line.includes(text))) lines.push(`  because: ${text}`);
  }
  const remedy = error.hint ?? error.entry.remedy;
  if (!ownRemedy.test(error.message) && !pointsElsewhere.test(remedy)) lines.push(`  what to do: ${shown(remedy)}`);
  return lines.join("\n");
}

function shown(text: string): string {
  return printableLines(withoutPasswords(text));
}
