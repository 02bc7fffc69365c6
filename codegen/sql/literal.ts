/** A string constant that means the same whatever `standard_conforming_strings` is. */
export function sqlString(value: string): string {
  const quoted = `'${value.replaceAll("'", "''")}'`;
  return value.includes("\\") ? `E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

/** Lines of a comment: what the text has in several lines, or in what Postgres takes for them, stays within. */
export function sqlComment(text: string): string {
  return text
    .split(/\r\n|[\n\r]/)
    .map((line) => `-- ${line}`.trimEnd())
    .join("\n");
}

/** A dollar-quoted text, with a tag that the text does not contain. */
export function dollarQuoted(tag: string, text: string): string {
  let free = tag;
  for (let number = 1; text.includes(`$${free}$`); number++) {
    free = `${tag}_${number}`;
  }
  return `$${free}$\n${text.trimEnd()}\n$${free}$`;
}
