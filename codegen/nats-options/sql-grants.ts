import { dollarQuoted, sqlString } from "../sql/literal.js";

/**
 * Nothing for PUBLIC, everything to the owner of the schema. What the installing role may not do is left out with a NOTICE.
 */
export function grantStatements(signatures: readonly string[]): string {
  const give = `
DECLARE
  owner CONSTANT text := (
    SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'hawser');
  signature text;
BEGIN
  FOREACH signature IN ARRAY ARRAY[
${signatures.map((signature) => `    ${sqlString(signature)}`).join(",\n")}
  ] LOOP
    EXECUTE pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', signature, owner);
  END LOOP;
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE NOTICE '% may not give the functions of the NATS options to % and goes on owning them', current_user, owner;
END`;
  return [
    ...signatures.map((signature) => `REVOKE ALL ON FUNCTION ${signature} FROM PUBLIC;`),
    `DO ${dollarQuoted("do", give.trim())};`,
    "",
  ].join("\n");
}
