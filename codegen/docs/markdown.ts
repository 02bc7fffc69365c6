/** Printing of Markdown: text in cells and tables whose cells cannot break out of their row. */

/** A table; a row's cells are Markdown already. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(cell).join(" | ")} |\n`;
  return line(head) + line(head.map(() => "---")) + rows.map(line).join("");
}

/** Code within a line. */
export function code(text: string): string {
  return text.includes("`") ? `\`\` ${text} \`\`` : `\`${text}\``;
}

/** Several pieces of code, separated by commas. */
export function codes(texts: readonly string[]): string {
  return texts.map(code).join(", ");
}

/** A comment of the spec as Markdown: what would be taken for HTML is escaped. */
export function prose(text: string): string {
  return text.replace(/[<>]/g, (mark) => (mark === "<" ? "&lt;" : "&gt;"));
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replace(/\s*\n\s*/g, " ");
}
