/**
 * Examples in the help of a command, which citty has no place for.
 */

/** A command line, without `hawser` before it where it begins with the command, and what it does. */
export type Examples = readonly (readonly [commandLine: string, explanation: string])[];

const examples = Symbol("examples");

/** Gives a command its examples. */
export function withExamples<Command extends object>(command: Command, shown: Examples): Command {
  return Object.defineProperty(command, examples, { value: shown });
}

/** The section of the help; empty if the command has none. */
export function examplesText(command: object): string {
  const shown = (command as { readonly [examples]?: Examples })[examples] ?? [];
  if (shown.length === 0) return "";
  const lines = shown.map(([commandLine, explanation]) => `  ${explanation}\n    ${commandLine}\n`);
  return `EXAMPLES\n\n${lines.join("\n")}`;
}
