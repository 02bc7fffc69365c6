/**
 * The script of the extension: what `hawser init` does as a superuser, in one block, and then nothing of it belongs to the
 * extension.
 */
import pg from "pg";
import { storeConstants } from "../../../generated/ts/settings/peer.js";
import { grantsSql } from "../grants.js";
import { migrationSql } from "../migrate.js";
import { migrations } from "../migrations.js";
import { bareDblinkSql } from "../nats/bare-dblink.js";
import { closeDblinkFunctionsSql, closeDblinkSchemaSql } from "../nats/closed-objects.js";
import { handlersPiece } from "../nats/handlers-piece.js";
import { inspection } from "../nats/inspect.js";
import { dblinkMark, dblinkSchema, foreignDataSchema, usedDblinkFunctions } from "../nats/objects.js";
import {
  dblinkPiece,
  elseOccupiedDblinkSql,
  eventTriggersPiece,
  functionsPiece,
  wrappersPiece,
} from "../nats/pieces.js";
import { newSchemaSql } from "../new-schema.js";
import { installationTurn } from "../turn.js";
import { extensionName } from "./control.js";
import { leftAloneSql, refusalsSql, strangerSql } from "./script-checks.js";
import { embedded, textArray } from "./script-text.js";

const { escapeLiteral: literal } = pg;

/** Stands for the schema of the functions, which is known when the script runs. */
const schema = "hawser_schema_of_functions";

/** Does all of it, and is there only while the script runs. */
const installer = "pg_temp.hawser_install()";

/** The script, for `litmus_pgnats--<version>.sql`. It is ASCII. */
export function extensionScript(version: string): string {
  const functions = functionsPiece({ functions: [] }, { schema, dblinkSchema });
  return `-- ${extensionName} ${version}. Made by hawser extension.
\\echo Use "CREATE EXTENSION ${extensionName}" to load this file. \\quit

SET LOCAL search_path = pg_catalog, pg_temp;

-- A function and a short call of it: Postgres repeats a statement that fails in the CONTEXT of the error, all of it.
CREATE FUNCTION ${installer} RETURNS void LANGUAGE plpgsql AS $hawser$
DECLARE
  extension CONSTANT oid := (SELECT e.oid FROM pg_extension AS e WHERE e.extname = '${extensionName}');
  place CONSTANT text := (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.oid = extension);
  prepared boolean := to_regclass('hawser.migrations') IS NOT NULL;
  -- Objects whose privileges some extension has made.
  known CONSTANT oid[] := ARRAY(SELECT i.objoid FROM pg_init_privs AS i);
  patience CONSTANT text := current_setting('lock_timeout');
  situation record;
  one record;
BEGIN
  -- As every other installation of this database does: they take turns, and nobody can hold up the others for ever.
  PERFORM set_config('lock_timeout', '${storeConstants.turnLimitMs}', true);
  PERFORM pg_advisory_xact_lock(${installationTurn});
  PERFORM set_config('lock_timeout', patience, true);
${strangerSql}
${leftAloneSql}
${refusalsSql}

  IF NOT prepared THEN
    EXECUTE ${embedded(newSchemaSql("hawser"))};
${migrations.map((step) => `    EXECUTE ${embedded(migrationSql(step))};`).join("\n")}
  END IF;
  EXECUTE ${embedded(grantsSql)};

  -- The script of an extension may not create another one, and its grants on what others made would be missing in dumps:
  -- so it takes functions of its own, whether dblink is installed or not.
  EXECUTE ${embedded(inspection.dblink)} INTO one
    USING ${literal(dblinkSchema)}, ${literal(dblinkMark)}, ${textArray(usedDblinkFunctions)};
  IF one.schema IS DISTINCT FROM ${literal(dblinkSchema)} THEN
    IF to_regnamespace(${literal(dblinkSchema)}) IS NULL THEN
      CREATE SCHEMA ${dblinkSchema};
      ${closeDblinkSchemaSql}
    ${elseOccupiedDblinkSql}
    END IF;
    COMMENT ON SCHEMA ${dblinkSchema} IS ${literal(dblinkMark)};
    EXECUTE ${embedded(bareDblinkSql)};
    ${closeDblinkFunctionsSql}
  END IF;
  EXECUTE ${embedded(dblinkPiece.sql)};
  EXECUTE ${embedded(handlersPiece.sql)};
  EXECUTE replace(${embedded(functions.sql)}, '${schema}', place);
  -- Left where the schema was dropped. The script of an extension replaces what is its own, and event triggers use these.
  FOR one IN SELECT p.oid::regprocedure AS signature FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(foreignDataSchema)}) LOOP
    EXECUTE format('ALTER EXTENSION ${extensionName} ADD FUNCTION %s', one.signature);
  END LOOP;
  EXECUTE ${embedded(wrappersPiece.sql)};
  EXECUTE ${embedded(eventTriggersPiece.sql)};

  -- What belongs to an extension is not dumped, and goes with it. One at a time: a table takes its types along.
  LOOP
    SELECT replace(o.type, 'foreign-data', 'foreign data') AS type, o.identity INTO one
      FROM pg_depend AS d CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) AS o
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
     ORDER BY o.type = 'type', d.objid
     LIMIT 1;
    EXIT WHEN NOT found;
    EXECUTE format('ALTER EXTENSION ${extensionName} DROP %s %s', one.type, one.identity);
  END LOOP;
  -- Nor are privileges dumped that were granted in here, on what was there before. An object that leaves an extension has
  -- none of that kind; ours may not take in the schema that it is in.
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
