import { readFileSync } from "node:fs";
import type { SetCondition, ValueCondition } from "../../src/nats/connections/server-options.js";
import { functionSettings } from "../sql/function-settings.js";
import { giveFunctionsToOwner } from "../sql/grants.js";
import { sqlString } from "../sql/literal.js";
import { inSchema } from "../sql/schema.js";
import type { OptionsModel, Rule } from "./read.js";

/** Path relative to the working directory: buf runs plugins in the root of the project. */
export const functionsFile = "schema/nats-server-options.sql";

/** SQL of the options, in the parts that both schemas are assembled from. `@schema@` is the schema. */
interface SqlTexts {
  /** Functions that both schemas have. */
  readonly shared: string;
  /** Functions that only the schema `hawser` has. */
  readonly ownOnly: string;
  /** Functions that only the schema `hawser_fdw` has. */
  readonly foreignOnly: string;
  /** Statements around the functions of the schema `hawser`, which replace `@functions@`. */
  readonly wrapped: string;
  /** Revokes the functions from PUBLIC and gives them to the owner of the schema `hawser`. */
  readonly grants: string;
}

export function sqlTexts({ options, rules, modes }: OptionsModel): SqlTexts {
  const rows = options.map(({ name, type, credential, hidden, default: value }) => {
    const initial = value === undefined ? "NULL" : sqlString(JSON.stringify(value));
    return `    ('${name}', '${type}', ${credential}, ${hidden}, ${initial}::jsonb)`;
  });
  const branches = modes.map(({ mode, requires }) => {
    const condition = requires.map((option) => `options ->> '${option}' IS NOT NULL`).join(" AND ");
    return condition === "" ? `    ELSE '${mode}'` : `    WHEN ${condition} THEN '${mode}'`;
  });
  const filled: Readonly<Record<string, string>> = {
    options: rows.join(",\n"),
    rules: rules.map(violation).join("\n"),
    modes: branches.join("\n"),
    settings: functionSettings().join("\n"),
  };
  const functions = readFileSync(functionsFile, "utf8").replace(/^(?:-- .*\n)+\n/, "");
  const text = functions.replace(/^@(\w+)@/gm, (_, name: string) => filled[name]!);
  const [shared = "", ownOnly = "", foreignOnly = ""] = text
    .replace(/\bhawser\.(?=nats_\w+\()/g, "@schema@.")
    .split(/^-- Only in .*\n\n/m);
  const created = `${shared}${ownOnly}`.replaceAll("@schema@", "hawser");
  const signatures = [...created.matchAll(/^COMMENT ON FUNCTION (.+?\)) IS /gm)].map(([, signature]) => signature!);
  return {
    shared,
    ownOnly,
    foreignOnly,
    wrapped: inSchema(["@functions@"]),
    grants: [
      ...signatures.map((signature) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
      giveFunctionsToOwner(signatures, "the functions of the NATS options"),
    ].join("\n"),
  };
}

/** Functions of the options in the schema `hawser`. */
export function optionsFunctionsSql(model: OptionsModel): string {
  const { shared, ownOnly } = sqlTexts(model);
  return (shared + ownOnly).replaceAll("@schema@", "hawser");
}

/** Branch of the CASE that finds the first violation. */
function violation({ holds, option, sqlstate, message, hint, about = [], wholeOnly = false }: Rule): string {
  // The server may have the options that a user mapping lacks, so rules over several options do not apply to a user
  // mapping alone.
  const parts = wholeOnly ? "part = 'whole' AND " : about.length > 0 ? "part IN ('whole', 'server') AND " : "";
  const fields = [option, sqlstate, message, hint, ...about].map(sqlString).join(", ");
  return `    WHEN ${parts}NOT (${conditionSql(holds)}) THEN\n      ARRAY[${fields}]`;
}

/** Condition over the jsonb variable `typed`; never null. */
function conditionSql({ required = [], properties = {}, not, anyOf, if: when, then }: SetCondition): string {
  return [
    ...required.map((name) => `typed ? '${name}'`),
    ...Object.entries(properties).map(([name, value]) => `coalesce(${valueSql(name, value)}, true)`),
    ...(not ? [`NOT (${conditionSql(not)})`] : []),
    ...(anyOf ? [`(${anyOf.map(conditionSql).join(" OR ")})`] : []),
    ...(when && then ? [`(NOT (${conditionSql(when)}) OR ${conditionSql(then)})`] : []),
  ].join(" AND ");
}

/** Condition on the value of an option; null if the option is not set. */
function valueSql(name: string, value: ValueCondition): string {
  const { type, const: constant, minimum, maximum, minLength, maxLength, pattern } = value;
  const json = `typed -> '${name}'`;
  const text = `typed ->> '${name}'`;
  const parts = [
    type && `${json} <> 'null'`,
    constant !== undefined && `${json} = ${sqlString(JSON.stringify(constant))}`,
    minimum !== undefined && `(${text})::numeric BETWEEN ${minimum} AND ${maximum}`,
    minLength !== undefined && `char_length(${text}) >= ${minLength}`,
    maxLength !== undefined && `char_length(${text}) <= ${maxLength}`,
    pattern !== undefined && `${text} ~ ${sqlString(pattern)}`,
  ];
  return parts.filter(Boolean).join(" AND ");
}
