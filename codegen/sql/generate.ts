import type { AnyDesc } from "@bufbuild/protobuf";
import { gatewayFunctions, gatewaySignature } from "../gateway/sql-function.js";
import { isMadeWithTables } from "../model/gateway-functions.js";
import type { Spec, SpecFile } from "../model/spec.js";
import { SpecError } from "../model/spec-error.js";
import { relationsOf } from "../model/tables.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, fileOfEachArea, hasSql, stringLiteral, templateLiteral, typescriptHead } from "../print.js";
import { readBody, readQuery, type SqlConstants, sqlConstants } from "./body.js";
import { schemaSql } from "./schema.js";

const docs = {
  tables: "Creates the tables. Runs once, on a database that has none of them.",
  functions: "Creates or replaces the functions and views.",
  grants:
    "Revokes everything from PUBLIC and grants the roles what they need. Skips, with a NOTICE, what the current role may not do.",
  signatures: "Functions that users call, as GRANT names them. Of one with payload types, the variant for bytes.",
} as const;

/** Generates `<area>-schema.ts` for each package with SQL: the statements that the program runs. */
export function generateSql(spec: Spec): GeneratedFile[] {
  const constants = sqlConstants(spec.files, spec.namedRules);
  refuseOtherSchemas(spec, constants);
  return fileOfEachArea(spec, hasSql, (sources, area) => schemaModule(area, sources, constants), "-schema");
}

/** @throws SpecError if a function or view names a table in another schema than its own: a change of grants moves a table */
function refuseOtherSchemas({ files }: Spec, constants: SqlConstants): void {
  const tables = files.flatMap((file) => file.tables);
  const places = new Map(tables.flatMap((table) => relationsOf(table).map((name) => [name, table.schema] as const)));
  const refuse = (where: AnyDesc, path: string, text: string): void => {
    for (const [named, schema, name] of text.matchAll(/\b(hawser\w*_data)\.(\w+)\b/g)) {
      const place = places.get(name!);
      if (place !== undefined && place !== schema)
        throw new SpecError(where, `${path} names ${named}, and the table is ${place}.${name}`);
    }
  };
  for (const { method, bodyFile } of files.flatMap((file) => file.functionGroups.flatMap((group) => group.functions)))
    refuse(method, `body_file ${bodyFile}`, readBody(method, bodyFile, constants));
  for (const { message, from } of files.flatMap((file) => file.views)) {
    if ("queryFile" in from)
      refuse(message, `query_file ${from.queryFile}`, readQuery(message, from.queryFile, constants));
  }
}

function schemaModule(area: string, sources: readonly SpecFile[], constants: SqlConstants): string {
  const sql = schemaSql(sources, constants);
  const parts = (["tables", "functions", "grants"] as const).flatMap((part) => {
    const text = sql[part];
    const name = `${area}${part.charAt(0).toUpperCase()}${part.slice(1)}Sql`;
    return text === undefined ? [] : [{ part, name, text }];
  });
  const schema = parts.filter(({ part }) => part !== "grants").map(({ name }) => name);
  const signatures = callersSignatures(sources, constants);
  return [
    typescriptHead("codegen/sql", sources),
    ...(signatures.length === 0
      ? []
      : [`${docstring(docs.signatures)}export const ${area}Signatures = {\n${signatures.join("")}} as const;\n`]),
    ...parts.map(
      ({ part, name, text }) => `${docstring(docs[part])}export const ${name} = ${templateLiteral(text)};\n`,
    ),
    `${docstring("Creates everything except the grants.")}export const ${area}SchemaSql = ${schema.join(' + "\\n" + ')};\n`,
  ].join("\n");
}

function callersSignatures(sources: readonly SpecFile[], constants: SqlConstants): string[] {
  const families = sources.flatMap((file) => file.gatewayGroups.flatMap((group) => group.families));
  return families.filter(isMadeWithTables).map((family) => {
    const variant = family.variants.find(({ payloadType }) => payloadType === "binary") ?? family.variants[0]!;
    const [fn] = gatewayFunctions(family, variant, { constants, version: "" });
    return `  ${family.method.localName}: ${stringLiteral(gatewaySignature(fn!))},\n`;
  });
}
