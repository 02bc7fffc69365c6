/**
 * What CREATE SERVER and ALTER SERVER run: the validator of the foreign data wrappers, and the function of the event
 * triggers. Superusers run both without having called them, so they belong to superusers, and touch nothing of anybody else.
 */
import pg from "pg";
import { natsForeignDataSql } from "../../../generated/ts/nats-options/index.js";
import { notifyChannels } from "../../../generated/ts/rows/nats.js";
import { errorTable } from "../../errors/index.js";
import { newSchemaSql } from "../new-schema.js";
import { closeForeignDataFunctionsSql } from "./closed-objects.js";
import { eventTriggerFunction, foreignDataSchema, runSchema } from "./objects.js";

const { escapeLiteral: literal } = pg;

/** Written at a server, or at a user mapping, of a wrapper with our validator. */
const ownServers = `
    SELECT s.oid, s.srvname FROM pg_foreign_server AS s
    JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
    JOIN pg_proc AS p ON p.oid = w.fdwvalidator AND p.proname = 'nats_fdw_validator'
    JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = ${literal(foreignDataSchema)}`;

const eventTriggerFunctionSql = `CREATE OR REPLACE FUNCTION ${eventTriggerFunction}
RETURNS event_trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
  servers text[];
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    IF EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() AS o
      WHERE o.object_type = 'function' AND o.schema_name = ${literal(runSchema)}
    ) THEN
      PERFORM pg_notify(${literal(notifyChannels.natsHandler)}, '{}');
    END IF;
    -- Whose a server was cannot be seen any more.
    IF NOT EXISTS (
      SELECT FROM pg_event_trigger_dropped_objects() AS o
      WHERE o.classid = 'pg_foreign_server'::regclass
        OR (o.classid = 'pg_user_mapping'::regclass AND o.address_args[1] IN (SELECT f.srvname FROM (${ownServers}) AS f))
    ) THEN
      RETURN;
    END IF;
  ELSIF EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    WHERE c.classid = 'pg_foreign_server'::regclass AND c.objid IN (SELECT f.oid FROM (${ownServers}) AS f)
  ) THEN
    servers := ARRAY(SELECT f.srvname FROM (${ownServers}) AS f ORDER BY f.oid);
    IF array_length(servers, 1) > 1 THEN
      RAISE EXCEPTION USING
        ERRCODE = ${literal(errorTable.invalid_argument.sqlstate)},
        MESSAGE = format('a database has one NATS server, and here %s are defined: %s', array_length(servers, 1), array_to_string(servers, ', ')),
        HINT = format('DROP SERVER %I CASCADE, or alter the one that is there.', servers[array_upper(servers, 1)]);
    END IF;
  ELSIF NOT EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() AS c
    JOIN pg_user_mappings AS m ON c.classid = 'pg_user_mapping'::regclass AND m.umid = c.objid
    WHERE m.srvid IN (SELECT f.oid FROM (${ownServers}) AS f)
  ) THEN
    RETURN;
  END IF;
  -- Delivered when it is committed: whoever listens reads the definition again.
  PERFORM pg_notify(${literal(notifyChannels.natsServer)}, json_build_object('operation', 'update', 'id', 1)::text);
END
$function$;
COMMENT ON FUNCTION ${eventTriggerFunction} IS 'Tells hawser serve what was done to foreign servers and user mappings, and that wrappers were dropped. Refuses a second NATS server.';
`;

const functionsSql = [natsForeignDataSql, eventTriggerFunctionSql].join("\n");

/** The functions of the schema, as DROP FUNCTION names them. */
export const foreignDataFunctions: readonly string[] = [
  ...functionsSql.matchAll(/^COMMENT ON FUNCTION (.+?\)) IS /gm),
].map(([, signature]) => signature!);

/** Makes or replaces all of it, in a block of PL/pgSQL that does nothing for who is no superuser. */
export const foreignDataSql = `DO $fdw$
DECLARE
  stranger name;
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
    RAISE NOTICE 'the schema ${foreignDataSchema} is left to superusers';
    RETURN;
  END IF;
  IF to_regnamespace(${literal(foreignDataSchema)}) IS NULL THEN
    EXECUTE $new$${newSchemaSql(foreignDataSchema)}$new$;
    COMMENT ON SCHEMA ${foreignDataSchema} IS 'Foreign data wrappers and event triggers of Hawser. Belongs to a superuser, because superusers run what is in it.';
  END IF;
  SELECT pg_get_userbyid(min(o.owner)) INTO stranger FROM (
    SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = ${literal(foreignDataSchema)}
    UNION ALL
    SELECT p.proowner FROM pg_proc AS p WHERE p.pronamespace = to_regnamespace(${literal(foreignDataSchema)})
  ) AS o (owner) WHERE o.owner NOT IN (SELECT r.oid FROM pg_roles AS r WHERE r.rolsuper);
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = ${literal(errorTable.name_occupied.sqlstate)},
      MESSAGE = format('the schema ${foreignDataSchema} or a function in it belongs to %I, who is no superuser', stranger);
  END IF;
  EXECUTE $new$${functionsSql}$new$;
  ${closeForeignDataFunctionsSql}
  GRANT USAGE ON SCHEMA ${foreignDataSchema} TO PUBLIC;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA ${foreignDataSchema} TO PUBLIC;
END
$fdw$;`;
