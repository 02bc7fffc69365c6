import { stringLiteral } from "../typescript.js";

/** What violation.ts exports. */
const runtimeNames = [
  "checkBytes",
  "checkEach",
  "checkText",
  "showValue",
  "type TextRules",
  "type Violation",
  "violation",
  "within",
];

/** The import of those names of violation.ts that the printed text uses. */
export function importLine(body: readonly string[], from: string): string {
  const text = body.join("\n");
  const used = runtimeNames.filter((name) => {
    const bare = name.replace("type ", "");
    return new RegExp(name.startsWith("type ") ? `: ${bare}\\b` : `\\b${bare}\\(`).test(text);
  });
  return `import { ${used.join(", ")} } from ${stringLiteral(from)};\n`;
}
