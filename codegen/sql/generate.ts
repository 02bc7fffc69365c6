import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, fileOfEachArea, hasSql, templateLiteral, typescriptHead } from "../print.js";
import { type SqlConstants, sqlConstants } from "./body.js";
import { schemaSql } from "./schema.js";

const docs = {
  tables: "Creates the tables. Runs once, on a database that has none of them.",
  functions: "Creates or replaces the functions and views.",
  grants:
    "Revokes everything from PUBLIC and grants the roles what they need. Skips, with a NOTICE, what the current role may not do.",
} as const;

/** Generates `<area>-schema.ts` for each package with SQL: the statements that the program runs. */
export function generateSql(spec: Spec): GeneratedFile[] {
  const constants = sqlConstants(spec.files, spec.namedRules);
  return fileOfEachArea(spec, hasSql, (sources, area) => schemaModule(area, sources, constants), "-schema");
}

function schemaModule(area: string, sources: readonly SpecFile[], constants: SqlConstants): string {
  const sql = schemaSql(sources, constants);
  const parts = (["tables", "functions", "grants"] as const).flatMap((part) => {
    const text = sql[part];
    const name = `${area}${part.charAt(0).toUpperCase()}${part.slice(1)}Sql`;
    return text === undefined ? [] : [{ part, name, text }];
  });
  const schema = parts.filter(({ part }) => part !== "grants").map(({ name }) => name);
  return [
    typescriptHead("codegen/sql", sources),
    ...parts.map(
      ({ part, name, text }) => `${docstring(docs[part])}export const ${name} = ${templateLiteral(text)};\n`,
    ),
    `${docstring("Creates everything except the grants.")}export const ${area}SchemaSql = ${schema.join(' + "\\n" + ')};\n`,
  ].join("\n");
}
