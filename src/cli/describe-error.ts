import pc from "picocolors";
import { HawserError } from "../errors/index.js";
import { withoutPasswords } from "./conceal.js";
import { printableLines } from "./printable.js";

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
  return lines.join("\n");
}

function shown(text: string): string {
  return printableLines(withoutPasswords(text));
}
