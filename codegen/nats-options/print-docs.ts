import type { GeneratedFile } from "../plugin.js";
import { code, markdownHead, markdownTable } from "../print.js";
import { type Option, type OptionsModel, sqlstates } from "./read.js";

/** Generates the reference page in `generated/docs/nats-options`. */
export function printDocs({ file, description, options, rules, modes }: OptionsModel): GeneratedFile[] {
  const names = new Set(options.map(({ name }) => name));
  const withCode = (text: string) => text.replace(/[a-z][a-z0-9_]*/g, (word) => (names.has(word) ? code(word) : word));
  const combinations = rules.flatMap(({ about, description: words, wholeOnly = false }) =>
    about === undefined || words === undefined ? [] : [{ about, words: withCode(words), wholeOnly }],
  );
  const rows = options.map((option) => [
    code(option.name) + (option.credential ? " **m**" : ""),
    option.name.endsWith("_path") ? "path" : option.type.replace("string", "text"),
    option.default === undefined ? "" : code(String(option.default)),
    rangeOf(option),
    option.description + (option.writeOnly ? " A secret: never shown in a message." : ""),
    combinations.flatMap(({ about, words }) => (about.includes(option.name) ? [words] : [])).join("; "),
  ]);
  const lines = combinations.map(({ words, wholeOnly }) => {
    const when = wholeOnly ? " Checked when server and user mapping are combined." : "";
    return `- ${words.charAt(0).toUpperCase()}${words.slice(1)}.${when}`;
  });
  const order = modes.map(({ mode, requires, description: meaning }, index) => [
    String(index + 1),
    code(mode),
    requires.map(code).join(" + ") || "—",
    meaning,
  ]);
  const content = `${markdownHead("codegen/nats-options", [file])}
# Options of the NATS server

${description}

Set them in \`CREATE SERVER … OPTIONS (…)\`; those marked **m** may also be set in \`CREATE USER MAPPING … OPTIONS (…)\`,
where other roles cannot read them. Where both set an option, the user mapping wins. How the server is defined, and where
secrets belong: [docs/nats-from-sql.md](../../../docs/nats-from-sql.md#where-secrets-belong).

## The options

${markdownTable(["name", "type", "default", "range", "meaning", "in combination"], rows)}
## How values are read

Options of a foreign server are strings; as JSON they may have their own type.

- An integer is an optional sign and decimal digits, with white space around it or not. \`0x10\`, \`1_000\`, \`1e3\` and
  \`5.0\` as strings are refused.
- A boolean has the spellings of Postgres: \`true\`, \`yes\`, \`on\`, \`1\`, \`false\`, \`no\`, \`off\`, \`0\` and every prefix
  that only one of them has, in any case, with white space around it or not.
- Text is taken as it is. Lengths count characters, not bytes.

## Combinations

${lines.join("\n")}

## Authentication

The first mode whose options are all set wins, whether server or user mapping sets them.

${markdownTable(["priority", "mode", "options", "meaning"], order)}
## Errors

The first violation is reported: unknown options first, then values of the wrong type, then combinations, then ranges,
lengths and patterns. Values of secrets, paths and credentials are never shown, nor any with an \`@\`. Postgres itself
writes a failed statement to its log, though: a secret in \`CREATE SERVER\` may end there.

| SQLSTATE | when |
| --- | --- |
| \`${sqlstates.unknown}\` | an option is unknown, or not allowed in its place |
| \`${sqlstates.value}\` | a value has the wrong type or is out of range |
| \`${sqlstates.missing}\` | an option is missing that another one needs |
| \`${sqlstates.conflict}\` | two options exclude each other |
`;
  return [{ path: "nats-server-options.md", content }];
}

function rangeOf({ type, minimum, maximum, minLength = 0, maxLength, "x-pattern-means": means }: Option): string {
  if (type === "boolean") return "`true` or `false`";
  if (type === "integer") return `${minimum} to ${maximum}`;
  return `${means === undefined ? "" : `${means}; `}${minLength} to ${maxLength} characters`;
}
