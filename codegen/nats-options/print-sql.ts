import type { GeneratedFile } from "../plugin.js";
import { inSchema } from "../sql/schema.js";
import { sqlHead } from "./head.js";
import type { OptionsModel } from "./model.js";
import { authFunction } from "./sql-auth.js";
import { coercionFunctions } from "./sql-coercion.js";
import { catalogFunction, checkFunction, completeFunction, validatorFunction } from "./sql-entry.js";
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
    { path: "foreign-data.sql", content: `${head}\n${foreignDataSql(model)}` },
  ];
}

/** Makes or replaces the functions. */
export function functionsSql(model: OptionsModel): string {
  return inSchema(functionsOf(model).map(createFunction));
}

/** Takes the functions from PUBLIC and gives them to the owner of the schema. */
export function grantsSql(model: OptionsModel): string {
  return grantStatements(functionsOf(model).map(functionSignature));
}

/** Where the validator of the foreign data wrappers is. */
const foreignDataSchema = "hawser_fdw";

/**
 * The validator of the foreign data wrappers, and copies of what it calls, in a schema of their own. Superusers run it, so
 * that nothing of it may belong to the owner of the schema `hawser`, who need not be one.
 */
export function foreignDataSql(model: OptionsModel): string {
  const functions = [...checkFunctions(model), catalogFunction(), validatorFunction()];
  const name = new RegExp(`\\bhawser\\.(?=(?:${functions.map((fn) => fn.name).join("|")})\\()`, "g");
  return functions.map((fn) => createFunction(fn).replace(name, `${foreignDataSchema}.`)).join("\n");
}

/** In an order in which each one finds those it calls. */
function functionsOf(model: OptionsModel): SqlFunction[] {
  return [...checkFunctions(model), completeFunction(model), catalogFunction(), authFunction(model)];
}

function checkFunctions(model: OptionsModel): SqlFunction[] {
  return [...coercionFunctions(model), suggestionFunction(), violationFunction(model), checkFunction()];
}
