import { ownerRole, roles } from "../model/roles.js";
import { inTableSchema, relationsOf, type Table, tableSchemas } from "../model/tables.js";
import type { View } from "../model/views.js";
import { doBlock, sqlString } from "./literal.js";
import { notifyFunctionName } from "./notify.js";

/** Objects that privileges are granted on. */
export interface Grantable {
  readonly tables: readonly Table[];
  readonly views: readonly View[];
  readonly functions: readonly { readonly signature: string; readonly execute: readonly string[] }[];
  /** Signatures of functions that every role may execute. */
  readonly harmless: readonly string[];
}

/**
 * Statements that revoke everything from PUBLIC and apply the spec's grants to the roles. Statements that the
 * installing role may not run (CREATE ROLE, ALTER … OWNER) are skipped with a NOTICE, so that a database user without
 * further rights can install for itself.
 */
export function grantStatements(grantable: Grantable): string {
  const granted = grantsByRole(grantable);
  const needed = [...new Set([ownerRole, ...namedRoles(grantable)])];
  return [
    revokeStatements(grantable),
    ...needed.map(createRole),
    ...[...granted].map(([role, grants]) => whereRoleExists(role, grants)),
    giveToOwner(grantable),
  ].join("\n");
}

function revokeStatements(grantable: Grantable): string {
  return [
    ...schemasOf(grantable).map((name) => `REVOKE ALL ON SCHEMA ${name} FROM PUBLIC;`),
    ...allRelations(grantable).map((name) => `REVOKE ALL ON TABLE ${name} FROM PUBLIC;`),
    ...allFunctions(grantable).map((signature) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
    "",
  ].join("\n");
}

/** Schemas of the objects. */
function schemasOf({ tables }: Grantable): string[] {
  return ["hawser", ...(tables.length === 0 ? [] : tableSchemas)];
}

/** Relations that GRANT and ALTER address with TABLE, including views, with their schema. */
function allRelations({ tables, views }: Grantable): string[] {
  const named = tables.flatMap((table) => relationsOf(table).map((name) => inTableSchema(table, name)));
  return [...named, ...views.map(({ name }) => `hawser.${name}`)];
}

function allFunctions({ tables, functions, harmless }: Grantable): string[] {
  const triggers = tables.flatMap((table) => notifyFunctionName(table) ?? []);
  return [...triggers.map((name) => `hawser.${name}()`), ...functions.map(({ signature }) => signature), ...harmless];
}

/** Roles that the spec's grants name. A missing role is created. */
function namedRoles({ tables, views, functions }: Grantable): string[] {
  return [
    ...tables.flatMap((table) => table.grants.map(({ role }) => role)),
    ...views.flatMap(viewGrants).map(({ role }) => role),
    ...functions.flatMap(({ execute }) => execute),
  ];
}

/** Privileges on a view: SELECT, or those on its table. */
function viewGrants({ from, select }: View): { readonly role: string; readonly privileges: readonly string[] }[] {
  if ("table" in from && select.length === 0) return from.table.grants.filter(({ columns }) => columns.length === 0);
  return select.map((role) => ({ role, privileges: ["SELECT"] }));
}

function grantsByRole({ tables, views, functions, harmless }: Grantable): Map<string, string[]> {
  const byRole = new Map<string, string[]>();
  const add = (role: string, grant: string) => {
    const grants = byRole.get(role) ?? [`GRANT USAGE ON SCHEMA hawser TO ${role};`];
    byRole.set(role, [...grants, grant]);
  };
  for (const table of tables) {
    for (const { role, privileges, columns } of table.grants) {
      const usage = `GRANT USAGE ON SCHEMA ${table.schema} TO ${role};`;
      if (!byRole.get(role)?.includes(usage)) add(role, usage);
      const onColumns = columns.length === 0 ? "" : ` (${columns.join(", ")})`;
      const words = privileges.map((privilege) => privilege + onColumns).join(", ");
      add(role, `GRANT ${words} ON TABLE ${inTableSchema(table)} TO ${role};`);
      const serials = table.columns.filter((column) => column.type === "bigserial");
      for (const serial of privileges.includes("INSERT") ? serials : []) {
        add(role, `GRANT USAGE ON SEQUENCE ${inTableSchema(table, `${table.name}_${serial.name}_seq`)} TO ${role};`);
      }
    }
  }
  for (const view of views) {
    for (const { role, privileges } of viewGrants(view)) {
      add(role, `GRANT ${privileges.join(", ")} ON TABLE hawser.${view.name} TO ${role};`);
    }
  }
  for (const { signature, execute } of functions) {
    for (const role of execute) {
      add(role, `GRANT EXECUTE ON FUNCTION ${signature} TO ${role};`);
    }
  }
  for (const signature of harmless) {
    for (const role of Object.keys(roles).filter((name) => name !== ownerRole)) {
      add(role, `GRANT EXECUTE ON FUNCTION ${signature} TO ${role};`);
    }
  }
  return byRole;
}

/** Creates a missing role, if the installing role may. */
export function createRole(role: string): string {
  return doBlock([
    "BEGIN",
    `  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = ${sqlString(role)}) THEN`,
    `    CREATE ROLE ${role} NOLOGIN;`,
    `    COMMENT ON ROLE ${role} IS ${sqlString(roles[role]!)};`,
    "  END IF;",
    "EXCEPTION",
    "  -- Roles belong to the whole cluster: a migration of another database may have made it meanwhile.",
    "  WHEN duplicate_object OR unique_violation THEN NULL;",
    "  WHEN insufficient_privilege THEN",
    `    RAISE NOTICE 'role ${role} is missing and % may not make it; its grants are left out', current_user;`,
    "END",
  ]);
}

/** Runs statements only if the role exists. */
export function whereRoleExists(role: string, grants: readonly string[]): string {
  return doBlock([
    "BEGIN",
    `  IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = ${sqlString(role)}) THEN`,
    ...grants.map((grant) => `    ${grant}`),
    "  END IF;",
    "END",
  ]);
}

/**
 * Gives all objects to the owner, or none: after a partial change neither role could migrate alone. A table that the
 * owner already has is left out, because ALTER TABLE would wait for all of its readers, and later queries would wait
 * behind it.
 */
function giveToOwner(grantable: Grantable): string {
  const relations = allRelations(grantable).map((name) => `       ${sqlString(name)}`);
  const hasRelations = relations.length > 0;
  const giveRelations = [
    "  FOR relation IN",
    "    SELECT c.oid FROM pg_catalog.pg_class AS c",
    "      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace",
    "     WHERE n.nspname || '.' || c.relname IN (",
    relations.join(",\n"),
    `     ) AND c.relowner <> '${ownerRole}'::pg_catalog.regrole`,
    "     ORDER BY c.oid",
    "  LOOP",
    `    EXECUTE pg_catalog.format('ALTER TABLE %s OWNER TO ${ownerRole}', relation);`,
    "  END LOOP;",
  ];
  return doBlock([
    ...(hasRelations ? ["DECLARE", "  relation pg_catalog.regclass;"] : []),
    "BEGIN",
    `  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '${ownerRole}') THEN`,
    "    RETURN;",
    "  END IF;",
    `  IF NOT pg_catalog.pg_has_role(current_user, '${ownerRole}', 'USAGE') THEN`,
    "    -- The installing role stays a member of the owner: otherwise it could not migrate next time.",
    `    EXECUTE pg_catalog.format('GRANT ${ownerRole} TO %I', current_user);`,
    "  END IF;",
    ...schemasOf(grantable).map((name) => `  ALTER SCHEMA ${name} OWNER TO ${ownerRole};`),
    ...(hasRelations ? giveRelations : []),
    ...allFunctions(grantable).map((signature) => `  ALTER FUNCTION ${signature} OWNER TO ${ownerRole};`),
    "EXCEPTION",
    "  WHEN insufficient_privilege THEN",
    `    RAISE NOTICE '% may not give the schema hawser to ${ownerRole} and goes on owning it', current_user;`,
    "END",
  ]);
}

/** Gives functions to the owner of the schema `hawser`, so that a function reads the schema with its owner's rights. */
export function giveFunctionsToOwner(signatures: readonly string[], what: string): string {
  return doBlock([
    "DECLARE",
    "  owner CONSTANT text := (",
    "    SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'hawser');",
    "  signature text;",
    "BEGIN",
    "  FOREACH signature IN ARRAY ARRAY[",
    signatures.map((signature) => `    ${sqlString(signature)}`).join(",\n"),
    "  ] LOOP",
    "    EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', signature, owner);",
    "  END LOOP;",
    "EXCEPTION",
    "  WHEN insufficient_privilege THEN",
    `    RAISE NOTICE '% may not give ${what} to % and goes on owning them', current_user, owner;`,
    "END",
  ]);
}
