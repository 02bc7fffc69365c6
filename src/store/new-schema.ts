/**
 * Making a schema that nobody else may have made meanwhile.
 */

/**
 * A block of PL/pgSQL. It fails where the schema is there: who made it could have put code of their own into it. What
 * ALTER DEFAULT PRIVILEGES gives to others on new schemas is taken back.
 *
 * @param name a plain name
 */
export function newSchemaSql(name: string): string {
  return `DO $do$
DECLARE
  grantee text;
BEGIN
  CREATE SCHEMA ${name};
  FOR grantee IN
    SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
    FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a
    WHERE n.nspname = '${name}' AND a.grantee <> n.nspowner
  LOOP
    EXECUTE 'REVOKE ALL ON SCHEMA ${name} FROM ' || grantee;
  END LOOP;
  -- Default privileges can leave out the owner, too.
  EXECUTE pg_catalog.format('GRANT ALL ON SCHEMA ${name} TO %I', current_user);
END
$do$;`;
}
