/**
 * The last check before a subject becomes part of a line of the protocol. Its real rules are in the spec, and have been
 * checked with the call.
 */
import { NatsError } from "../../errors/index.js";

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not get through.
const unsafe = /[\u0000-\u0020]/;

/** @throws NatsError invalid_argument, if `subject` is empty or would end its word or line of the protocol */
export function checkSubject(argument: string, subject: string): void {
  if (subject !== "" && !unsafe.test(subject)) return;
  throw new NatsError(
    "invalid_argument",
    `${argument} ${JSON.stringify(subject)} must not be empty, and have no white space and no control characters.`,
  );
}
