import type { GeneratedFile } from "../plugin.js";
import { sqlHead } from "./head.js";
import type { OptionsModel } from "./model.js";
import { authFunction } from "./sql-auth.js";
import { coercionFunctions } from "./sql-coercion.js";
import { entryFunctions } from "./sql-entry.js";
import { createFunction, functionSignature, type SqlFunction } from "./sql-function.js";
import { grantStatements } from "./sql-grants.js";
import { suggestionFunction } from "./sql-suggestion.js";
import { violationFunction } from "./sql-violation.js";

/** The folder `generated/sql/nats-options`. */
export function printSql(model: OptionsModel): GeneratedFile[] {
  const head = sqlHead(model.file);
  return [
    { path: "validator.sql", content: `${head}\n${functionsSql(model)}` },
    { path: "grants.sql", content: `${head}\n${grantsSql(model)}` },
  ];
}

/** Makes or replaces the functions. */
export function functionsSql(model: OptionsModel): string {
  return functionsOf(model).map(createFunction).join("\n");
}

/** Takes the functions from PUBLIC and gives them to the owner of the schema. */
export function grantsSql(model: OptionsModel): string {
  return grantStatements(functionsOf(model).map(functionSignature));
}

/** In an order in which each one finds those it calls. */
function functionsOf(model: OptionsModel): SqlFunction[] {
  return [
    ...coercionFunctions(model),
    suggestionFunction(),
    violationFunction(model),
    ...entryFunctions(model),
    authFunction(model),
  ];
}
