/** String constant that has the same meaning under either value of `standard_conforming_strings`. */
export function sqlString(value: string): string {
  const quoted = `'${value.replaceAll("'", "''")}'`;
  return value.includes("\\") ? `E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** Comment lines; every line of the text, by the line terminators of Postgres too, stays within the comment. */
export function sqlComment(text: string): string {
  return text
    .split(/\r\n|[\n\r]/)
    .map((line) => `-- ${line}`.trimEnd())
    .join("\n");
}

/** Dollar-quoted text with a tag that the text does not contain. */
export function dollarQuoted(tag: string, text: string): string {
  let free = tag;
  for (let number = 1; text.includes(`$${free}$`); number++) {
    free = `${tag}_${number}`;
  }
  return `$${free}$\n${text.trimEnd()}\n$${free}$`;
}

/** Anonymous code block. */
export function doBlock(lines: readonly string[]): string {
  return `DO ${dollarQuoted("do", lines.join("\n"))};\n`;
}
