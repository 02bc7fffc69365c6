import { stringLiteral } from "../print.js";

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

/**
 * The import of those names that the printed text uses; empty if it uses none.
 *
 * @param names what the module exports, types as `type Name`. Default: what violation.ts does
 */
export function importLine(body: readonly string[], from: string, names: readonly string[] = runtimeNames): string {
  const text = body.join("\n");
  const used = names.filter((name) => {
    const bare = name.replace("type ", "");
    return new RegExp(name.startsWith("type ") ? `: ${bare}\\b` : `\\b${bare}\\(`).test(text);
  });
  return used.length === 0 ? "" : `import { ${used.join(", ")} } from ${stringLiteral(from)};\n`;
}
