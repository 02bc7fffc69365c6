/**
 * The script of the extension: what `hawser init` does as a superuser, in one block, and then nothing of it belongs to the
 * extension.
 */
import pg from "pg";
import { grantsSql } from "../grants.js";
import { installationTurn, migrationSql } from "../migrate.js";
import { migrations } from "../migrations.js";
import { bareDblinkSql } from "../nats/bare-dblink.js";
import { inspection } from "../nats/inspect.js";
import { dblinkMark, dblinkSchema, usedDblinkFunctions } from "../nats/objects.js";
import { dblinkPiece, eventTriggersPiece, functionsPiece, wrappersPiece } from "../nats/pieces.js";
import { extensionName } from "./control.js";
import { leftAloneSql, refusalsSql } from "./script-checks.js";
import { embedded, textArray } from "./script-text.js";

const { escapeLiteral: literal } = pg;

/** Stand for schemas that are known when the script runs. */
const places = { schema: "hawser_schema_of_functions", dblinkSchema: "hawser_schema_of_dblink" };

/** The script, for `litmus_pgnats--<version>.sql`. It is ASCII. */
export function extensionScript(version: string): string {
  const { schema, dblinkSchema: dblinkPlace } = places;
  const functions = `replace(replace(${embedded(functionsPiece({ functions: [] }, places).sql)}, '${schema}', place), '${dblinkPlace}', dblink_place)`;
  return `-- ${extensionName} ${version}. Made by hawser extension.
\\echo Use "CREATE EXTENSION ${extensionName}" to load this file. \\quit

SET LOCAL search_path = pg_catalog, pg_temp;

DO $hawser$
DECLARE
  extension CONSTANT oid := (SELECT e.oid FROM pg_extension AS e WHERE e.extname = '${extensionName}');
  place CONSTANT text := (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.oid = extension);
  prepared boolean := to_regclass('hawser.migrations') IS NOT NULL;
  dblink_place text;
  situation record;
  one record;
BEGIN
  -- As every other installation of this database does: they take turns.
  PERFORM pg_advisory_xact_lock(${installationTurn});
${leftAloneSql}
${refusalsSql}

  IF NOT prepared THEN
${migrations.map((step) => `    EXECUTE ${embedded(migrationSql(step))};`).join("\n")}
  END IF;
  EXECUTE ${embedded(grantsSql)};

  EXECUTE ${embedded(inspection.dblink)} INTO one
    USING ${literal(dblinkSchema)}, ${literal(dblinkMark)}, ${textArray(usedDblinkFunctions)};
  dblink_place := one.schema;
  IF dblink_place IS NULL THEN
    -- The script of an extension may not create another one.
    dblink_place := ${literal(dblinkSchema)};
    IF to_regnamespace(dblink_place) IS NULL THEN
      CREATE SCHEMA ${dblinkSchema};
    END IF;
    COMMENT ON SCHEMA ${dblinkSchema} IS ${literal(dblinkMark)};
    EXECUTE ${embedded(bareDblinkSql)};
  END IF;
  EXECUTE ${embedded(dblinkPiece.sql)};
  EXECUTE ${functions};
  EXECUTE ${embedded(wrappersPiece.sql)};
  EXECUTE ${embedded(eventTriggersPiece.sql)};

  -- What belongs to an extension is not dumped, and goes with it. One at a time: a table takes its types along.
  LOOP
    SELECT o.type, o.identity INTO one
      FROM pg_depend AS d CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) AS o
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'
     ORDER BY o.type = 'type', d.objid
     LIMIT 1;
    EXIT WHEN NOT found;
    EXECUTE format('ALTER EXTENSION ${extensionName} DROP %s %s', replace(one.type, 'foreign-data', 'foreign data'), one.identity);
  END LOOP;
END
$hawser$;
`;
}
