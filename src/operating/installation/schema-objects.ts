/**
 * Compares the objects of Hawser's schemas with those of this version. An object may have been dropped, renamed or
 * replaced manually, or lost in a partial restore. Functions, views and triggers are created again; objects that
 * contain or protect data are only reported.
 */
import type pg from "pg";
import { HawserError } from "../../foundation/errors/index.js";
import {
  grantsSql,
  isCurrent,
  missingSteps,
  ownSchemaNames,
  tableSchema,
} from "../../jobs-and-peers/migrations/index.js";
import {
  type Declared,
  declaredSchema,
  type FoundPart,
  foundSchema,
  type Part,
  type Relation,
} from "./declared-schema.js";
import {
  againText,
  functionsOf,
  type InstalledObject,
  identifier,
  literals,
  normalizePrivilegesSql,
  pinnedPath,
  type RunQuery,
  someOf,
} from "./object.js";
import type { Difference, Fault, RolesState } from "./state.js";

const declared = declaredSchema();

/**
 * Returns true if the schema has this version. Only a schema of this version is compared; false if the role cannot read
 * the version.
 */
export async function isOfThisVersion(client: pg.Client): Promise<boolean> {
  // A refused query would end the transaction of a first installation.
  const { rows } = await client.query<{ readable: boolean }>(readableSql);
  if (rows[0]?.readable === false) return false;
  try {
    return isCurrent(await missingSteps(client));
  } catch (error) {
    if (error instanceof HawserError) return false;
    throw error;
  }
}

const readableSql = `
  SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') OR coalesce((
           SELECT has_schema_privilege(p.pronamespace, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
             FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace('hawser') AND p.proname = 'applied_migrations'), false) AS readable
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = '${tableSchema}' AND c.relname = 'migrations'`;

/** Differences of the schema from this version; empty for a schema of another version. */
export async function inspectSchemaObjects(client: pg.Client, runQuery: RunQuery): Promise<readonly Difference[]> {
  if (!(await isOfThisVersion(client))) return [];
  const found = await foundSchema(runQuery);
  const relations = new Map(found.relations.map((relation) => [relation.name, relation]));
  const parts = new Map(found.parts.map((part) => [partKey(part), part]));
  const functions = new Map(found.functions.map((fn) => [fn.signature, fn]));
  const undeclared = found.relations.filter(({ name }) => !declared.relations.some((one) => one.name === name));
  return [
    ...declared.functions.flatMap(({ signature, definition, statement }): Difference[] => {
      const one = functions.get(signature);
      if (one?.definition === definition) return [];
      const how = one === undefined ? "is missing" : "is not that of this version";
      return [
        { object: signature, what: `the function ${signature}`, how, isNew: one === undefined, repair: statement },
      ];
    }),
    ...declared.relations.flatMap((relation): Difference[] => {
      const one = relations.get(relation.name);
      return relation.kind === "view" ? viewDifference(relation, one) : tableDifferences(relation, one, undeclared);
    }),
    ...declared.parts.flatMap((part): Difference[] =>
      // The parts of a missing table are missing with it.
      relations.get(part.table)?.kind === "table" ? partDifference(part, parts.get(partKey(part))) : [],
    ),
    ...found.parts.filter(isForeignConstraint).map(
      ({ table, name }): Difference => ({
        object: table,
        what: `the constraint ${name} of ${table}`,
        how: "is not Hawser's, and can refuse its rows",
        remedy: `ALTER TABLE ${table} DROP CONSTRAINT ${identifier(name)}`,
      }),
    ),
  ];
}

const isForeignConstraint = (part: Part): boolean =>
  part.kind === "constraint" &&
  declared.parts.some(({ table }) => table === part.table) &&
  !declared.parts.some((one) => partKey(one) === partKey(part));

const partKey = ({ kind, table, name }: Part): string => `${kind} ${table} ${name}`;

function viewDifference(
  { name: object, columns, statement }: Declared<Relation>,
  found: Relation | undefined,
): Difference[] {
  const of = { object, what: `the view ${object}`, isNew: true };
  if (found === undefined) return [{ ...of, how: "is missing", repair: statement }];
  if (found.kind !== "view") return [{ ...of, how: "is a table", remedy: `rename or drop the table, ${againText}` }];
  if (JSON.stringify(found.columns) === JSON.stringify(columns)) return [];
  return [{ ...of, how: "has other columns", repair: `DROP VIEW ${object};\n${statement}` }];
}

const backup = "restore the schemas of the tables from a backup";

function tableDifferences(
  { name: table, columns, statement }: Declared<Relation>,
  found: Relation | undefined,
  undeclared: readonly Relation[],
): Difference[] {
  if (found?.kind !== "table") {
    const [schema, name] = table.split(".");
    const renamed = undeclared.find((other) => JSON.stringify(other.columns) === JSON.stringify(columns));
    const rename = `ALTER TABLE ${renamed?.name ?? `${schema}.…`} RENAME TO ${name}`;
    const how = found === undefined ? "is missing" : "is a view";
    return [{ object: table, what: `the table ${table}`, how, isLost: true, remedy: renamedOr(rename) }];
  }
  return columns.flatMap((column): Difference[] => {
    const one = found.columns.find((other) => other.name === column.name);
    const of = { object: table, what: `the column ${column.name} of ${table}` };
    const alter = `ALTER TABLE ${table} ALTER COLUMN ${column.name}`;
    if (one === undefined) {
      const remedy = renamedOr(`ALTER TABLE ${table} RENAME COLUMN … TO ${column.name}`);
      return [{ ...of, how: "is missing", isLost: true, remedy }];
    }
    if (one.type !== column.type) {
      const how = `has the type ${one.type} and not ${column.type}`;
      return [{ ...of, how, isLost: true, remedy: `${alter} TYPE ${column.type}` }];
    }
    if (column.byDefault && !one.byDefault) {
      const line = new RegExp(`^  (${column.name} .+?),?$`, "m").exec(statement)?.[1] ?? column.name;
      return [
        { ...of, how: "has no default", isLost: true, remedy: `alter it to what it was (${line}), or ${backup}` },
      ];
    }
    return column.notNull && !one.notNull ? [{ ...of, how: "may be NULL", remedy: `${alter} SET NOT NULL` }] : [];
  });
}

const renamedOr = (rename: string): string => `if it was renamed: ${rename}; else ${backup}`;

function partDifference({ kind, table, name, statement }: Declared<Part>, found: FoundPart | undefined): Difference[] {
  if (found?.isValid === true) return [];
  const of = { object: table, what: `the ${kind} ${name} of ${table}` };
  const alter = `ALTER TABLE ${table}`;
  const how = found === undefined ? "is missing" : kind === "trigger" ? "is disabled" : "is not valid";
  switch (kind) {
    case "trigger":
      return [{ ...of, how, repair: found === undefined ? statement : `${alter} ENABLE TRIGGER ${name};` }];
    // Creating an index or a constraint can take long on a large table, or fail because of a row.
    case "index":
      return [
        {
          ...of,
          how,
          remedy:
            found === undefined ? concurrently(statement) : `REINDEX INDEX CONCURRENTLY ${table.split(".")[0]}.${name}`,
        },
      ];
    case "constraint": {
      const validate = `${alter} VALIDATE CONSTRAINT ${name}`;
      if (found !== undefined) return [{ ...of, how, remedy: validate }];
      const add = statement.replace(/;$/, "");
      return [{ ...of, how, remedy: / CHECK \(/.test(add) ? `${add} NOT VALID; ${validate}` : add }];
    }
  }
}

const concurrently = (statement: string) => statement.replace("INDEX", "INDEX CONCURRENTLY").replace(/;$/, "");

/** SQL that repairs the differences. New functions and views get exactly the privileges of this version. */
function repairSql(differences: readonly Difference[]): string | undefined {
  const repaired = differences.filter(({ repair }) => repair !== undefined);
  if (repaired.length === 0) return undefined;
  const made = literals(["", ...repaired.filter(({ isNew }) => isNew === true).map(({ object }) => object)]);
  const objects = `${functionsOf("hawser", `format('hawser.%s(%s)', p.proname, oidvectortypes(p.proargtypes)) IN (${made})`)}
      UNION ALL
      SELECT 'TABLE ' || c.oid::regclass, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner))
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname IN ${ownSchemaNames} AND n.nspname || '.' || c.relname IN (${made})`;
  return [
    pinnedPath,
    ...repaired.map(({ repair }) => repair!),
    `DO $close$\nBEGIN\n    ${normalizePrivilegesSql(objects)}\nEND\n$close$;`,
    grantsSql,
  ].join("\n");
}

const descriptions = (differences: readonly Difference[]) => differences.map(({ what, how }) => `${what} ${how}`);

/**
 * Fails if a table or column with data is missing: nothing works without it, and an installation cannot restore it.
 *
 * @throws HawserError `schema_missing`
 */
export async function refuseLostTables(client: pg.Client, runQuery: RunQuery): Promise<void> {
  const lost = (await inspectSchemaObjects(client, runQuery)).filter(({ isLost }) => isLost === true);
  if (lost.length === 0) return;
  throw new HawserError(
    "schema_missing",
    `${someOf(descriptions(lost), 5)}, and \`hawser init\` cannot restore its content. Nothing was done`,
    { remedy: [...new Set(lost.map(({ remedy }) => remedy))].slice(0, 5).join(". ") },
  );
}

export const schemaObjects: InstalledObject = {
  name: "schema-objects",
  what: "functions, views and triggers that are missing or changed",
  ofNats: false,
  create: ({ schemaObjects: differences }) => repairSql(differences),
  faults: ({ schemaObjects: differences, roles, refusals }) => [
    ...repairableFault(
      differences.filter(({ repair }) => repair !== undefined),
      roles,
      refusals.get("schema-objects"),
    ),
    ...differences
      .filter(({ repair }) => repair === undefined)
      .map(
        ({ what, how, isLost, remedy }): Fault => ({
          kind: isLost === true ? "missing" : "risk",
          what: `${what} ${how}`,
          ...(isLost === true && { meaning: "functions that need it fail", code: "schema_missing" }),
          remedy: remedy!,
        }),
      ),
  ],
};

function repairableFault(
  differences: readonly Difference[],
  { ownsAll }: RolesState,
  refusal: string | undefined,
): Fault[] {
  if (differences.length === 0) return [];
  return [
    {
      kind: "missing",
      what: someOf(descriptions(differences), 3),
      refused: `create ${differences.length === 1 ? "it" : "them"} again${refusal === undefined ? "" : ` (${refusal})`}`,
      meaning: "statements and functions that use it fail, or do something else",
      remedy: "run `hawser init` as the owner of the schema hawser, or as a superuser",
      repairable: ownsAll,
      code: "schema_missing",
    },
  ];
}
