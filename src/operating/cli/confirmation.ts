/** Questions before a command changes many rows. */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { flag } from "./command-line.js";
import { print } from "./output.js";

/** Flag of the commands that ask. */
export const yesOption = { yes: flag("Do not ask; without a terminal nothing is asked") } as const;

/**
 * Asks on the terminal. After any other answer than yes it says so, and the exit status will be 1.
 *
 * @param question called only if standard input and standard error are a terminal; undefined asks nothing
 * @returns true without a terminal, so that scripts go on
 */
export async function confirmed(question: () => Promise<string | undefined>): Promise<boolean> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY || !stderr.isTTY) return true;
  const text = await question();
  if (text === undefined) return true;
  stderr.write(`${text} [y/N] `);
  // Without line editing of its own, Ctrl-C ends the process as always.
  const lines = createInterface({ input: stdin, terminal: false });
  const answer = await Promise.race([once(lines, "line"), once(lines, "close")]);
  lines.close();
  if (/^\s*y(es)?\s*$/i.test(String(answer[0] ?? ""))) return true;
  print(stderr, "Nothing was changed.");
  process.exitCode = 1;
  return false;
}
