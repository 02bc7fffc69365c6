/**
 * Taking what was just made, beside the schema `hawser`, from everybody whom ALTER DEFAULT PRIVILEGES gives what somebody
 * makes.
 */
import pg from "pg";
import { dblinkSchema, foreignDataSchema, subscriptionsView } from "./objects.js";

const { escapeLiteral: literal } = pg;

/** A block of PL/pgSQL, to follow CREATE SCHEMA for dblink: nobody but the owner has anything of it. */
export const closeDblinkSchemaSql = revokes(
  `SELECT 'SCHEMA ${dblinkSchema}' AS object, n.nspowner AS owner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
        FROM pg_namespace AS n WHERE n.nspname = ${literal(dblinkSchema)}`,
);

/** A block of PL/pgSQL, to follow the making of dblink's functions. */
export const closeDblinkFunctionsSql = revokes(functionsOf(dblinkSchema, "p.probin ~ '(^|/)dblink$'"));

/** A block of PL/pgSQL, to follow the making of what foreign data wrappers and event triggers run. */
export const closeForeignDataFunctionsSql = revokes(functionsOf(foreignDataSchema, "true"));

/** A block of PL/pgSQL, to follow CREATE VIEW. */
export const closeSubscriptionsViewSql = revokes(
  `SELECT 'TABLE ${subscriptionsView}' AS object, c.relowner AS owner, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
        FROM pg_class AS c WHERE c.oid = to_regclass(${literal(subscriptionsView)})`,
);

function functionsOf(schema: string, condition: string): string {
  return `SELECT 'FUNCTION ' || p.oid::regprocedure AS object, p.proowner AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
        FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(schema)}) AND ${condition}`;
}

function revokes(objects: string): string {
  return `DECLARE
      statement text;
    BEGIN
      FOR statement IN
        SELECT format('REVOKE ALL ON %s FROM %s CASCADE', o.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
        FROM (${objects}) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS a
        WHERE a.grantee <> o.owner
        UNION
        -- They can lack rights of the owner, too.
        SELECT format('GRANT ALL ON %s TO %I', o.object, pg_get_userbyid(o.owner)) FROM (${objects}) AS o
      LOOP
        EXECUTE statement;
      END LOOP;
    END;`;
}
