/**
 * Schema of the SQL functions that reach NATS.
 */
import { HawserError } from "../errors/index.js";
import type { Database } from "./database.js";

/**
 * Schema of the SQL functions that reach NATS. Functions of the same name that others have made do not count: they would run
 * with the rights of the login that calls them.
 *
 * @throws HawserError `schema_missing`, if there are none; as {@link Database.query}
 */
export async function natsFunctionsSchema(database: Database): Promise<string> {
  const [found] = await database.query<{ readonly schema: string }>("look for the SQL functions that reach NATS", {
    text: `SELECT n.nspname AS schema FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE p.proname = 'nats_get_stream_list' AND p.prosecdef
              AND p.proowner = (SELECT g.proowner FROM pg_catalog.pg_proc AS g
                                 WHERE g.oid = pg_catalog.to_regprocedure('hawser.gateway_call(text)'))
            ORDER BY 1 LIMIT 1`,
  });
  if (found !== undefined) return found.schema;
  const words = "the database has no SQL functions that reach NATS, or those of an older version; run `hawser init`";
  throw new HawserError("schema_missing", words);
}
