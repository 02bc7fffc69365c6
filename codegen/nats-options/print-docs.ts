import type { GeneratedFile } from "../plugin.js";
import { markdownHead } from "../print.js";
import type { Option, OptionsModel } from "./model.js";

/** Generates the reference page in `generated/docs/nats-options`. */
export function printDocs(model: OptionsModel): GeneratedFile[] {
  const sections = [
    intro(model),
    optionTable(model),
    values(model),
    combinations(model),
    authOrder(model),
    errors(model),
  ];
  return [
    {
      path: "nats-server-options.md",
      content: `${markdownHead("codegen/nats-options", [model.file])}\n${sections.join("\n")}`,
    },
  ];
}

function intro(model: OptionsModel): string {
  return `# Options of the NATS server

${model.description}

Set them in \`CREATE SERVER … OPTIONS (…)\`; those marked **m** may also be set in \`CREATE USER MAPPING … OPTIONS (…)\`,
where other roles cannot read them. Where both set an option, the user mapping wins. How the server is defined, and where
secrets belong: [docs/nats-from-sql.md](../../../docs/nats-from-sql.md#where-secrets-belong).
`;
}

function optionTable(model: OptionsModel): string {
  const rows = model.options.map((option) => {
    const related = model.rules.filter((rule) => rule.about.includes(option.name)).map((rule) => rule.description);
    return row([
      `\`${option.name}\`${option.userMapping ? " **m**" : ""}`,
      typeOf(option),
      option.default === undefined ? "" : `\`${option.default}\``,
      rangeOf(option),
      option.description + (option.secret ? " A secret: never shown in a message." : ""),
      related.map(withCode(model)).join("; "),
    ]);
  });
  return [
    "## The options",
    "",
    row(["name", "type", "default", "range", "meaning", "in combination"]),
    row(["---", "---", "---", "---", "---", "---"]),
    ...rows,
    "",
  ].join("\n");
}

function typeOf(option: Option): string {
  return option.type === "string" ? (option.path ? "path" : "text") : option.type;
}

function rangeOf(option: Option): string {
  switch (option.type) {
    case "boolean":
      return "`true` or `false`";
    case "integer":
      return `${option.minimum} to ${option.maximum}`;
    case "string": {
      const length = `${option.minLength} to ${option.maxLength} characters`;
      return option.pattern === undefined ? length : `${option.pattern.means}; ${length}`;
    }
  }
}

function values(model: OptionsModel): string {
  const hasBoolean = model.options.some((option) => option.type === "boolean");
  return `## How values are read

Options of a foreign server are strings; as JSON they may have their own type.

- An integer is an optional sign and decimal digits, with white space around it or not. \`0x10\`, \`1_000\`, \`1e3\` and
  \`5.0\` as strings are refused.
${
  hasBoolean
    ? `- A boolean has the spellings of Postgres: \`true\`, \`yes\`, \`on\`, \`1\`, \`false\`, \`no\`, \`off\`, \`0\` and every prefix
  that only one of them has, in any case, with white space around it or not.
`
    : ""
}- Text is taken as it is. Lengths count characters, not bytes.
`;
}

function combinations(model: OptionsModel): string {
  const lines = model.rules.map((rule) => {
    const when = rule.wholeOnly ? " Checked when server and user mapping are combined." : "";
    return `- ${sentence(withCode(model)(rule.description))}${when}`;
  });
  return `## Combinations\n\n${lines.length === 0 ? "No rule combines options." : lines.join("\n")}\n`;
}

function authOrder(model: OptionsModel): string {
  const rows = model.modes.map(({ mode, requires, description }, index) =>
    row([String(index + 1), `\`${mode}\``, requires.map((option) => `\`${option}\``).join(" + ") || "—", description]),
  );
  return [
    "## Authentication",
    "",
    "The first mode whose options are all set wins, whether server or user mapping sets them.",
    "",
    row(["priority", "mode", "options", "meaning"]),
    row(["---", "---", "---", "---"]),
    ...rows,
    "",
  ].join("\n");
}

function errors({ sqlstates }: OptionsModel): string {
  return `## Errors

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
}

/** Formats option names within a text as code. */
function withCode(model: OptionsModel): (text: string) => string {
  const names = new Set(model.options.map((option) => option.name));
  return (text) => text.replace(/[a-z][a-z0-9_]*/g, (word) => (names.has(word) ? `\`${word}\`` : word));
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** Table row; a bar within a cell is escaped, because it would end the cell. */
function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}
