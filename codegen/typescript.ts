/** Printing of TypeScript: the pieces that all plugins need, so that none of them joins quotes by hand. */

/** A string literal. */
export function stringLiteral(value: string): string {
  return JSON.stringify(value).replace(/[\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16)}`);
}

/** A template literal with the text as it is, so that long texts stay readable. */
export function templateLiteral(text: string): string {
  return `\`${text.replace(/\\|`|\$\{/g, (piece) => `\\${piece}`)}\``;
}

/** A regular expression literal with the `u` flag. */
export function patternLiteral(source: string): string {
  return `/${source.replace(/\\.|\//gs, (piece) => (piece === "/" ? "\\/" : piece))}/u`;
}

/** A docstring, indented by `indent`; empty for an empty text. */
export function docstring(text: string, indent = ""): string {
  const lines = text.replaceAll("*/", "*\\/").split("\n");
  if (text === "") {
    return "";
  }
  if (lines.length === 1) {
    return `${indent}/** ${lines[0]} */\n`;
  }
  const body = lines.map((line) => `${indent} *${line === "" ? "" : ` ${line}`}\n`).join("");
  return `${indent}/**\n${body}${indent} */\n`;
}

/** A property name, in quotes only where it needs them. */
export function propertyName(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : stringLiteral(name);
}
