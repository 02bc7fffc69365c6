/** What others can do to Hawser's tables, and what an installation makes of it. */
import { doctor } from "../../../src/operating/doctor/index.js";

/** Findings about the schema: others depend on what else runs on this server, such as roles of other tests. */
export const findingsOf = async (databaseUrl: string) =>
  (await doctor({ databaseUrl, secretsDirectories: [] })).findings.filter(
    ({ check, severity }) => ["schema-objects", "version"].includes(check) && severity !== "note",
  );

/** Everything that an installation could leave behind. */
export const objectsSql = `
  SELECT 'relation' AS kind, oid::regclass::text AS name FROM pg_class
  UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc
  UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
  UNION ALL SELECT 'extension', extname FROM pg_extension
  UNION ALL SELECT 'wrapper', fdwname FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'event trigger', evtname FROM pg_event_trigger
  ORDER BY 1, 2`;

/** An event trigger that enables row security for the tables of commands with these tags. */
export const enabling = (tags: string) => [
  `CREATE FUNCTION public.secure() RETURNS event_trigger LANGUAGE plpgsql AS $$
   DECLARE t record;
   BEGIN
     FOR t IN SELECT d.objid, d.object_identity FROM pg_event_trigger_ddl_commands() AS d WHERE d.object_type = 'table'
     LOOP
       IF NOT (SELECT c.relrowsecurity FROM pg_class AS c WHERE c.oid = t.objid) THEN
         EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t.object_identity);
       END IF;
     END LOOP;
   END $$`,
  `CREATE EVENT TRIGGER secure ON ddl_command_end WHEN TAG IN (${tags}) EXECUTE FUNCTION public.secure()`,
];

/** Fails for the nth command with a tag, within the session of the installation. */
export const failing = (tag: string, nth: number) => [
  "CREATE SEQUENCE public.commands",
  `CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
   BEGIN
     IF nextval('public.commands') >= ${nth} THEN RAISE 'no more %', tg_tag; END IF;
   END $$`,
  `CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('${tag}') EXECUTE FUNCTION public.refuse()`,
];

/** Tables with row security. */
export const securedSql =
  "SELECT relname FROM pg_class WHERE relnamespace IN ('hawser'::regnamespace, 'hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND relrowsecurity";
