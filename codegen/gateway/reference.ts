import type { GatewayFamily, GatewayGroup, GatewayVariant } from "../model/gateway-functions.js";
import type { GatewayValue } from "../model/gateway-values.js";
import { lowerFirst } from "../model/names.js";
import { limitPhrases } from "../model/rule-text.js";
import type { SpecFile } from "../model/spec.js";
import { markdownHead, prose } from "../print.js";
import { sqlParameters } from "./sql-argument.js";

/** Generates `nats-functions.md`: every function with its parameters, their limits, and its result. */
export function referencePage(sources: readonly SpecFile[], groups: readonly GatewayGroup[]): string {
  const families = groups.flatMap((group) => group.families.filter(({ internal }) => !internal));
  return [
    markdownHead("codegen/gateway", sources),
    "# SQL functions\n",
    "`T` is the type of the payload: there is one function each for `text`, `json`, `jsonb` and `binary`, whose",
    "payloads are `bytea`. A parameter that is optional may be left out or NULL; the others may be NULL only where the table",
    "says so. The behaviour of the functions is described in [docs/nats-from-sql.md](../../../docs/nats-from-sql.md), and the errors are",
    "in [errors.md](../errors.md).\n",
    `${families.map(entry).join("\n")}\n`,
    ...families.map(section),
  ].join("\n");
}

/** Line of a function in the table of contents. */
function entry(family: GatewayFamily): string {
  const name = nameWithT(family.names[0]!);
  const firstSentence = prose(family.comment)
    .replaceAll("\n", " ")
    .replace(/\. .*$/, ".");
  return `- [${name}](#${name.toLowerCase()}): ${lowerFirst(firstSentence).replace(/\.$/, "")}`;
}

function nameWithT(name: string): string {
  return name.replace("{T}", "T");
}

function section(family: GatewayFamily): string {
  const variant = family.variants[0]!;
  const parameters = sqlParameters(family);
  const [name, ...aliases] = family.names.map(nameWithT);
  const signature = parameters.map(
    (value) => `${value.name} ${typeText(value, variant)}${value.optional ? " DEFAULT NULL" : ""}`,
  );
  return [
    `## ${name}\n`,
    `    ${name}(${signature.join(", ")}) → ${returnText(family, variant)}\n`,
    `${prose(family.comment)}\n`,
    ...(aliases.length === 0 ? [] : [`Also called \`${aliases.join("`, `")}\`.\n`]),
    ...(parameters.length === 0
      ? []
      : [
          table(
            ["parameter", "type", "meaning", "limits"],
            parameters.map((value) => parameterRow(value, variant)),
          ),
        ]),
    ...(family.returns === "row" || family.returns === "rows"
      ? [
          table(
            ["column", "type", "meaning"],
            family.results.map((value) => [`\`${value.name}\``, columnType(value, variant), prose(value.comment)]),
          ),
        ]
      : []),
  ].join("\n");
}

function typeText(value: GatewayValue, { payloadType }: GatewayVariant): string {
  const type = value.payload && payloadType !== undefined ? "T" : value.sqlType;
  return value.repeated ? `${type}[]` : type;
}

function columnType(value: GatewayValue, variant: GatewayVariant): string {
  return value.optional ? `${typeText(value, variant)}, may be NULL` : typeText(value, variant);
}

function returnText(family: GatewayFamily, variant: GatewayVariant): string {
  switch (family.returns) {
    case "nothing":
      return "void";
    case "value":
      return columnType(family.results[0]!, variant);
    default:
      return family.returns === "row" ? "one row" : "rows";
  }
}

function parameterRow(value: GatewayValue, variant: GatewayVariant): string[] {
  const kind = value.kind === "object" || value.kind === "list" ? "json" : value.kind;
  const limits = limitPhrases(value.rules, kind).map((phrase) => phrase.replace(/^must be /, ""));
  const type = typeText(value, variant);
  const mayBe = value.optional ? ", optional" : "";
  return [`\`${value.name}\``, type + mayBe, prose(value.comment), limits.join("; ")];
}

function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |\n`;
  return `${line(head)}|${head.map(() => "---").join("|")}|\n${rows.map(line).join("")}`;
}
