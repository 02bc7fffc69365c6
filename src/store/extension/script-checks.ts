/**
 * What the script of the extension looks at before it makes anything: the same, and with the same errors, as `hawser init`.
 */
import pg from "pg";
import { tables } from "../../../generated/ts/rows/peer.js";
import { checksumOf, migrations } from "../migrations.js";
import { moveOtherDblink, reservedSchemas } from "../nats/conflicts.js";
import { publicFunctions } from "../nats/function-text.js";
import { inspection } from "../nats/inspect.js";
import {
  dblinkSchema,
  defaultFunctionsSchema,
  eventTriggerFunction,
  eventTriggers,
  foreignDataSchema,
  harmlessDblinkSymbols,
  nativeExtensions,
  readTables,
  usedDblinkFunctions,
  wrapperNames,
  wrapperValidator,
} from "../nats/objects.js";
import { schemaLookSql } from "../schema-trust.js";
import { extensionName } from "./control.js";
import { embedded, raise, textArray } from "./script-text.js";

const { escapeLiteral: literal } = pg;

/** What {@link isPlainName} refuses, for Postgres. */
const unplain = literal(`["'$\\\\@[:cntrl:]]`);

const functions = publicFunctions({ schema: defaultFunctionsSchema, dblinkSchema });
const functionNames = textArray([...new Set(functions.map(({ name }) => name))]);
const signatures = textArray(functions.map(({ name, types }) => `${name}(${types})`));
const findFunctions = `USING ${functionNames}, ${textArray(readTables)}, NULL::text, ${textArray(usedDblinkFunctions)}`;

const record = `(${migrations.map((step) => `(${step.id}, ${literal(checksumOf(step))})`).join(", ")})`;

/** Ends the script where something in the schema is not Hawser's: to read it could run the code of others. */
export const strangerSql = `
  IF prepared THEN
    EXECUTE ${embedded(schemaLookSql)} INTO one;
    IF one.what IS NOT NULL THEN
      ${raise(
        "name_occupied",
        `format(CASE WHEN one.odd THEN '%s of %I is not the plain table that Hawser makes' ELSE '%s belongs to %I, who is neither a superuser nor a member of hawser_owner' END, one.what, one.owner)`,
        `format('If %1$I has installed Hawser here and is to be trusted: GRANT hawser_owner TO %1$I. If not: DROP SCHEMA hawser CASCADE.', one.owner)`,
      )}
    END IF;
  END IF;`;

/** Returns where the schema is there already, unless this version has made it for peers alone. */
export const leftAloneSql = `
  IF to_regnamespace('hawser') IS NOT NULL THEN
    IF prepared THEN
      EXECUTE ${embedded(
        `SELECT count(*) = ${migrations.length} AND bool_and((id, checksum) IN ${record}) FROM ${tables.migration}`,
      )} INTO prepared;
    END IF;
    IF prepared THEN
      EXECUTE 'SELECT NOT EXISTS (SELECT FROM (' || ${embedded(inspection.functions)} || ') AS f WHERE f."isOurs")'
        INTO prepared ${findFunctions};
    END IF;
    IF NOT prepared THEN
      -- CREATE EXTENSION has raised it to this.
      IF current_setting('client_min_messages') = 'warning' THEN
        SET LOCAL client_min_messages = notice;
      END IF;
      RAISE NOTICE USING
        MESSAGE = 'the schema hawser is there already, and the extension ${extensionName} has made nothing',
        HINT = 'If a dump is being restored, it brings the rest. Else \`hawser init\` says whether something is missing, and makes it.';
      RETURN;
    END IF;
    DROP FUNCTION IF EXISTS hawser.gateway_call(text), hawser.next_message_id();
  END IF;`;

const schemaCheck = `
  IF place ~ ${literal(reservedSchemas.source)} OR place ~ ${unplain} THEN
    ${raise(
      "invalid_argument",
      `format('%I cannot be the schema of the SQL functions: its name must be without quotes, $, @, \\ and control characters, and it must belong neither to Postgres nor to Hawser', place)`,
      `'CREATE EXTENSION ${extensionName} SCHEMA public'`,
    )}
  END IF;`;

const databaseCheck = `
  EXECUTE ${embedded(inspection.situation)} INTO situation USING ${textArray(nativeExtensions)}, ${literal(dblinkSchema)};
  IF situation.encoding <> 'UTF8' THEN
    ${raise(
      "not_supported",
      `format('the encoding of this database is %s, and NATS from SQL needs UTF8', situation.encoding)`,
      `'Use a database with that encoding.'`,
    )}
  END IF;
  IF situation.native IS NOT NULL THEN
    ${raise(
      "native_extension",
      `format('the native extension (%s) is installed in this database, and its functions have the same names', situation.native)`,
      `'DROP EXTENSION it first, or use another database.'`,
    )}
  END IF;`;

/** Functions of ours may be left where the schema was dropped: they are in no other schema, and an extension replaces none. */
const functionsCheck = `
  FOR one IN EXECUTE ${embedded(inspection.functions)} ${findFunctions} LOOP
    IF one."isOurs" AND one.schema <> place THEN
      ${raise(
        "name_occupied",
        `format('the SQL functions are installed in the schema %I', one.schema)`,
        `format('CREATE EXTENSION ${extensionName} SCHEMA %I, or run \`hawser init --uninstall\` first.', one.schema)`,
      )}
    ELSIF one."isOurs" THEN
      EXECUTE 'DROP FUNCTION ' || one.signature;
    ELSIF one.schema = place AND format('%s(%s)', one.name, one.types) = ANY (${signatures}) THEN
      ${raise(
        "name_occupied",
        `format('the function %s of %I, which is not Hawser''s, stands where one of its own would', one.signature, one.owner)`,
        `'Rename or drop it, or name another schema: CREATE EXTENSION ${extensionName} SCHEMA ….'`.replace(
          " …",
          " name",
        ),
      )}
    END IF;
  END LOOP;`;

const wrappersCheck = `
  IF situation."foreignDataStranger" IS NOT NULL THEN
    ${raise(
      "name_occupied",
      `format('the schema ${foreignDataSchema}, whose functions superusers run, or a function in it belongs to %I, who is no superuser', situation."foreignDataStranger")`,
      `'DROP SCHEMA ${foreignDataSchema} CASCADE'`,
    )}
  END IF;
  FOR one IN EXECUTE ${embedded(inspection.wrappers)} USING ${textArray(wrapperNames)}, ${literal(wrapperValidator)} LOOP
    IF NOT one."isOurs" AND coalesce(one.validator, one.handler) IS NOT NULL THEN
      ${raise(
        "name_occupied",
        `format('the foreign data wrapper %I is another program''s: its handler is %s and its validator %s', one.name, coalesce(one.handler, 'missing'), coalesce(one.validator, 'missing'))`,
        `'Rename or drop it.'`,
      )}
    END IF;
  END LOOP;
  FOR one IN EXECUTE ${embedded(inspection.eventTriggers)} USING ${textArray(eventTriggers.map(({ name }) => name))} LOOP
    IF one.calls <> ${literal(eventTriggerFunction)} THEN
      ${raise(
        "name_occupied",
        `format('the event trigger %I calls %s instead of ${eventTriggerFunction}', one.name, one.calls)`,
        `'Rename or drop it.'`,
      )}
    END IF;
  END LOOP;`;

const dblinkCheck = `
  FOR one IN EXECUTE ${embedded(inspection.openFunctions)} USING ${textArray(harmlessDblinkSymbols)} LOOP
    ${raise(
      "dblink_shared",
      `format('every role may call dblink (%s), and with it use or replace the gateway''s connection of a session that it shares', one.signature)`,
      `CASE WHEN one."isMember" THEN '${moveOtherDblink}' ELSE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one.signature) END`,
    )}
  END LOOP;
  IF situation."dblinkSchemaTrusted" IS FALSE THEN
    ${raise(
      "name_occupied",
      `format('the schema ${dblinkSchema}, where dblink goes, belongs to %I, who could put functions of their own beside it', situation."dblinkSchemaOwner")`,
      `'DROP SCHEMA ${dblinkSchema}'`,
    )}
  ELSIF NOT situation."dblinkAvailable" THEN
    ${raise(
      "not_supported",
      `'this Postgres does not have dblink, by which the SQL functions reach the gateway'`,
      `'Install the contrib modules of Postgres, which it is one of (such as the package postgresql-contrib).'`,
    )}
  END IF;`;

/** Ends the script, with the error that `hawser init` has, where something is in the way. */
export const refusalsSql = [schemaCheck, databaseCheck, functionsCheck, wrappersCheck, dblinkCheck].join("");
