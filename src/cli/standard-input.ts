/**
 * Standard input as something to read messages from.
 */
import { fstatSync, type Stats } from "node:fs";
import { CliError } from "../errors/index.js";

/**
 * The stream.
 *
 * @throws CliError `invalid_argument` if it is a directory, which Node would take for an input without a byte, or closed;
 * where there is a /dev/null, Node has opened it in place of a closed one, and that is an empty input
 */
export function standardInput(): NodeJS.ReadStream {
  const stat = statOf(0);
  if (stat === undefined || stat.isDirectory()) {
    throw new CliError(
      "invalid_argument",
      `standard input is ${stat === undefined ? "closed" : "a directory"}; give a file or a pipe with the message`,
    );
  }
  return process.stdin;
}

function statOf(descriptor: number): Stats | undefined {
  try {
    return fstatSync(descriptor);
  } catch {
    return undefined;
  }
}
