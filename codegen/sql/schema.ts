import { gatewayFunctions, gatewaySignature } from "../gateway/sql-function.js";
import type { SqlFunction } from "../model/functions.js";
import { isMadeWithTables } from "../model/gateway-functions.js";
import type { SpecFile } from "../model/spec.js";
import { type Table, tableSchemas } from "../model/tables.js";
import type { SqlConstants } from "./body.js";
import { dropDefaultPrivileges, recordPresentObjects, schemaObjects } from "./default-privileges.js";
import { errorFunctionSignatures, errorFunctions } from "./errors.js";
import { functionSignature, functionStatements } from "./function.js";
import { grantStatements } from "./grants.js";
import { limitFunctionSignatures, limitFunctions } from "./limits.js";
import { notifyTrigger } from "./notify.js";
import { tableStatements } from "./table.js";
import { viewStatements } from "./view.js";

/** SQL of some files of the spec, in the parts in which a migration applies it. Empty parts are undefined. */
export interface SchemaSql {
  /** Applied once, on a database without the schema: tables, keys, indexes, first rows. */
  readonly tables: string | undefined;
  /** Applied after the tables, and again with each version: triggers, functions, views. Views come last. */
  readonly functions: string | undefined;
  /** Applied last, and again with each version. */
  readonly grants: string | undefined;
}

/** @param constants fixed settings that the bodies of functions may name */
export function schemaSql(files: readonly SpecFile[], constants: SqlConstants): SchemaSql {
  const tables: Table[] = files.flatMap((file) => file.tables);
  const functions: SqlFunction[] = files.flatMap((file) => file.functionGroups.flatMap((group) => group.functions));
  const families = files
    .flatMap((file) => file.gatewayGroups.flatMap((group) => group.families))
    .filter(isMadeWithTables);
  const gateway = families.flatMap((family) =>
    family.variants
      .flatMap((variant) => gatewayFunctions(family, variant, { constants, version: "" }))
      .map((fn) => ({ statement: fn.statement, signature: gatewaySignature(fn), execute: family.execute })),
  );
  const views = files.flatMap((file) => file.views);
  const errors = files.flatMap((file) => file.errorTables);
  const harmless = errors.length > 0 ? [...errorFunctionSignatures, ...limitFunctionSignatures] : [];
  const functionTexts = [
    ...tables.flatMap((table) => (table.notify === undefined ? [] : notifyTrigger(table, table.notify))),
    ...functions.map((fn) => functionStatements(fn, constants)),
    ...gateway.map(({ statement }) => statement),
    ...(errors.length > 0 ? [errorFunctions(errors), limitFunctions()] : []),
    ...views.map((view) => viewStatements(view, constants)),
  ];
  const granted = [...functions.map((fn) => ({ signature: functionSignature(fn), execute: fn.execute })), ...gateway];
  return {
    tables: tables.length === 0 ? undefined : inSchema(tables.map(tableStatements)),
    functions: functionTexts.length === 0 ? undefined : inSchema(functionTexts),
    grants:
      tables.length + functionTexts.length === 0
        ? undefined
        : grantStatements({ tables, views, functions: granted, harmless }),
  };
}

/** Statements that create objects in the schemas of Hawser, and these if they are missing. */
export function inSchema(statements: readonly string[]): string {
  return [recordPresentObjects(schemaObjects, createSchemas), ...statements, dropDefaultPrivileges(schemaObjects)].join(
    "\n",
  );
}

/**
 * Creates the schemas. CREATE SCHEMA IF NOT EXISTS would require CREATE on the database and raise a NOTICE even if the
 * schema exists.
 */
const createSchemas = ["hawser", ...tableSchemas].flatMap((name) => [
  `IF to_regnamespace('${name}') IS NULL THEN`,
  `  CREATE SCHEMA ${name};`,
  "END IF;",
]);
