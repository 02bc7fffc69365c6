/**
 * Script of the extension. It does the same as `hawser init` by a superuser, in one block, and then removes all objects
 * from the extension.
 */
import { tables } from "../../../../generated/ts/rows/peer.js";
import { type ErrorCode, errorTable } from "../../../foundation/errors/index.js";
import {
  checksumOf,
  functionsChecksum,
  installationLockKey,
  installationOwner,
  migrations,
  newSchemaSql,
  ownSchemaNames,
  ownSchemas,
  plannedTransactions,
  programSchema,
  schemaInspectionSql,
  stateRepairBlock,
  turnLimitMs,
} from "../../../jobs-and-peers/migrations/index.js";
import { leasePollMs } from "../../../jobs-and-peers/store/index.js";
import { dblinkSchema, dblinkSql } from "../dblink.js";
import { foreignDataSchema } from "../foreign-data.js";
import { dropInternalFunctions, foundFunctionsSql, functionsText } from "../functions.js";
import { literal } from "../object.js";
import { conflictsSql, objects } from "../objects.js";

/** Name for CREATE EXTENSION. */
export const extensionName = "litmus_pgnats";

/** Placeholder for the schema of the functions, which is known when the script runs. */
const schema = "hawser_schema_of_functions";

/** Temporary function that runs the whole installation. */
const installer = "pg_temp.hawser_install()";

/**
 * PL/pgSQL expression for an SQL text, dollar-quoted. Non-ASCII characters are inserted at run time: Postgres converts
 * a script to the database encoding before it runs, and a failed conversion could not be reported properly.
 */
function embedded(sql: string): string {
  const mark = (character: string) => `<U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}>`;
  const characters = [...new Set(sql.match(/[^\p{ASCII}]/gu) ?? [])];
  const ascii = characters.reduce((text, one) => text.replaceAll(one, mark(one)), sql);
  let tag = "$sql$";
  for (let n = 2; ascii.includes(tag); n++) tag = `$sql${n}$`;
  return characters.reduce(
    (text, one) => `replace(${text}, '${mark(one)}', chr(${one.codePointAt(0)}))`,
    `${tag}${ascii}${tag}`,
  );
}

/**
 * Objects that the script creates differently from `hawser init`, because a script cannot create another extension and
 * knows its schema only at run time.
 */
const overrides: Readonly<Record<string, string>> = {
  tables: embedded(stateRepairBlock),
  dblink: embedded(dblinkSql({ isBare: true })),
  functions: `replace(${embedded(functionsText({ schema, dblinkSchema }))}, '${schema}', place)`,
};

/** Statements that create the objects, in the order of the list. */
const creationText = objects
  .flatMap(({ name, create }) => overrides[name] ?? (typeof create === "string" ? embedded(create) : []))
  .map((sql) => `  EXECUTE ${sql};`)
  .join("\n");

/** All migration steps and the functions, for a database without the schema. */
const stepsText = plannedTransactions({
  steps: migrations,
  isNew: true,
  makesSchemas: [],
  lastStep: 0,
  functionsStep: 0,
  isComplete: false,
})
  .map(({ sql }) => `    EXECUTE ${embedded(sql)};`)
  .join("\n");

/** Query: true if another live session holds the installation lock. */
const lockHeldSql = `SELECT EXISTS (SELECT FROM ${tables.owner} AS o WHERE o.what = '${installationOwner}' AND o.pid <> pg_backend_pid() AND hawser.is_alive(o.pid, o.life))`;

/** Fails if an object in the schema is not Hawser's, since reading it could run code of another role. */
const refuseForeignSql = `
  IF prepared THEN
    EXECUTE ${embedded(schemaInspectionSql)} INTO one;
    IF one.what IS NOT NULL THEN
      RAISE EXCEPTION USING ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
        MESSAGE = format(CASE WHEN one.odd THEN '%s of %I is not the plain table that Hawser creates' ELSE '%s belongs to %I, who is neither a superuser nor a member of hawser_owner' END, one.what, one.owner),
        HINT = one.remedy || '.';
    END IF;
  END IF;`;

const record = `(${migrations.map((step) => `(${step.id}, ${literal(checksumOf(step))})`).join(", ")})`;

/** Query: true if the database has all steps of this version and no others, and its functions. */
const completeSql = `SELECT count(*) = ${migrations.length} AND bool_and((m.id, m.checksum) IN ${record})
  AND bool_or(m.functions = '${functionsChecksum(programSchema)}') FROM ${tables.migration} AS m`;

/**
 * Waits for the installation lock if it is a row, and locks the row until the end. If a step is missing, the script
 * creates nothing, so it does not wait: the holder may be creating an index concurrently, which waits for this
 * transaction.
 */
const waitForLockSql = `
  IF prepared THEN
    EXECUTE ${embedded(completeSql)} INTO prepared;
  END IF;
  IF prepared AND to_regclass('${tables.owner}') IS NOT NULL THEN
    FOR nth IN 1 .. ${turnLimitMs / leasePollMs} LOOP
      EXECUTE ${embedded(lockHeldSql)} INTO held;
      EXIT WHEN NOT held;
      PERFORM pg_sleep(${leasePollMs / 1000});
    END LOOP;
    EXECUTE ${embedded(`SELECT FROM ${tables.owner} WHERE what = '${installationOwner}' FOR UPDATE`)};
    EXECUTE ${embedded(lockHeldSql)} INTO held;
    IF held THEN
      EXECUTE ${embedded(`SELECT pid FROM ${tables.owner} WHERE what = '${installationOwner}'`)} INTO one;
      RAISE EXCEPTION USING ERRCODE = 'lock_not_available',
        MESSAGE = format('the database is being prepared by the session %s', one.pid),
        HINT = 'Try again when it has ended. If it is not an active installation: SELECT pg_terminate_backend(pid) with its pid.';
    END IF;
  END IF;`;

/** Returns if a schema already exists, unless this version created it for peers only. */
const leftAloneSql = `
  SELECT min(n.nspname) AS name INTO one FROM pg_namespace AS n WHERE n.nspname IN ${ownSchemaNames};
  IF one.name IS NOT NULL THEN
    IF prepared THEN
      EXECUTE ${embedded(`SELECT NOT EXISTS (SELECT FROM (${foundFunctionsSql}) AS f WHERE f."isOurs")`)} INTO prepared;
    END IF;
    IF NOT prepared THEN
      -- CREATE EXTENSION has raised the level to warning, which would hide the notice.
      IF current_setting('client_min_messages') = 'warning' THEN
        SET LOCAL client_min_messages = notice;
      END IF;
      RAISE NOTICE USING
        MESSAGE = format('the schema %s already exists, and the extension ${extensionName} created nothing', one.name),
        HINT = 'If a dump is being restored, it brings the rest. Otherwise, run \`hawser init\`, which creates what is missing.';
      RETURN;
    END IF;
    ${dropInternalFunctions}
  END IF;`;

/** Error codes of the conflicts that `hawser init` checks. */
const conflictCodes: readonly ErrorCode[] = [
  "not_supported",
  "native_extension",
  "dblink_shared",
  "name_occupied",
  "invalid_argument",
];
const conflicts = `
  EXECUTE ${embedded(conflictsSql("$1", "false", "true"))} INTO one USING place;
  IF one.code IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = one.what, HINT = one.remedy, ERRCODE = CASE one.code
      ${conflictCodes.map((code) => `WHEN '${code}' THEN ${literal(errorTable[code].sqlstate)}`).join("\n      ")} END;
  END IF;`;

/** Content of `litmus_pgnats--<version>.sql`, in ASCII. */
export function extensionScript(version: string): string {
  return `-- ${extensionName} ${version}. Made by hawser extension.
\\echo Use "CREATE EXTENSION ${extensionName}" to load this file. \\quit

SET LOCAL search_path = pg_catalog, pg_temp;

-- A function with a short call, because Postgres prints the whole failed statement in the CONTEXT of an error.
CREATE FUNCTION ${installer} RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off AS $hawser$
DECLARE
  extension CONSTANT oid := (SELECT e.oid FROM pg_extension AS e WHERE e.extname = '${extensionName}');
  place CONSTANT text := (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.oid = extension);
  prepared boolean := to_regclass('${tables.migration}') IS NOT NULL AND to_regnamespace('hawser') IS NOT NULL;
  -- Objects whose initial privileges an extension has set.
  known CONSTANT oid[] := ARRAY(SELECT i.objoid FROM pg_init_privs AS i);
  timeout_before CONSTANT text := current_setting('lock_timeout');
  one record;
  held boolean := false;
BEGIN
  -- Installations in a database run one after another, and none waits forever.
  PERFORM set_config('lock_timeout', '${turnLimitMs}', true);
  IF NOT prepared THEN
    PERFORM pg_advisory_xact_lock(${installationLockKey});
  END IF;
${refuseForeignSql}
${waitForLockSql}
  PERFORM set_config('lock_timeout', timeout_before, true);
${leftAloneSql}
${conflicts}

  -- Functions that a dropped schema left behind: an extension can replace only its own functions.
  FOR one IN EXECUTE ${embedded(`SELECT f.signature FROM (${foundFunctionsSql}) AS f WHERE f."isOurs"`)} LOOP
    EXECUTE 'DROP FUNCTION ' || one.signature;
  END LOOP;
  -- The same applies to these functions, which event triggers use, so that they cannot be dropped.
  FOR one IN SELECT p.oid::regprocedure AS signature FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(foreignDataSchema)}) LOOP
    EXECUTE format('ALTER EXTENSION ${extensionName} ADD FUNCTION %s', one.signature);
  END LOOP;

  IF NOT prepared THEN
${ownSchemas.map((name) => `    EXECUTE ${embedded(newSchemaSql(name))};`).join("\n")}
${stepsText}
  END IF;
${creationText}

  -- Members of an extension are not dumped and are dropped with it, so the objects leave it. One at a time, because a
  -- table takes its types along.
  LOOP
    SELECT replace(o.type, 'foreign-data', 'foreign data') AS type, o.identity INTO one
      FROM pg_depend AS d CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) AS o
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
     ORDER BY o.type = 'type', d.objid
     LIMIT 1;
    EXIT WHEN NOT found;
    EXECUTE format('ALTER EXTENSION ${extensionName} DROP %s %s', one.type, one.identity);
  END LOOP;
  -- pg_dump also omits privileges that this script granted on existing objects: they are recorded as initial privileges
  -- of an extension. The record is deleted when the object leaves an extension, so it joins and leaves plpgsql; this
  -- extension may not contain its own schema.
  FOR one IN
    SELECT DISTINCT replace(o.type, 'foreign-data', 'foreign data') AS type, o.identity
      FROM pg_init_privs AS i CROSS JOIN pg_identify_object(i.classoid, i.objoid, 0) AS o
     WHERE i.privtype = 'e' AND i.objoid <> ALL (known) AND NOT EXISTS (
       SELECT FROM pg_depend AS d WHERE d.classid = i.classoid AND d.objid = i.objoid AND d.deptype = 'e')
  LOOP
    EXECUTE format('ALTER EXTENSION plpgsql ADD %s %s', one.type, one.identity);
    EXECUTE format('ALTER EXTENSION plpgsql DROP %s %s', one.type, one.identity);
  END LOOP;
END
$hawser$;

SELECT ${installer};
DROP FUNCTION ${installer};
`;
}
