/** Schema of the SQL functions that reach NATS. */
import { natsSqlMethods } from "../../../generated/ts/nats-functions/client.js";
import { HawserError } from "../../foundation/errors/index.js";
import type { Database } from "../../jobs-and-peers/store/index.js";

/** Function that `hawser streams` needs, and that older installations lack. */
const searchedFunction = natsSqlMethods.streamList.sqlName;

/**
 * Finds the schema of the SQL functions that reach NATS. Commands pass it to `natsSql`, because their users do not name
 * it; programs name it, because `natsSql` sends no statement besides the calls. Functions of the same name that other
 * roles own are ignored: they would run with the rights of the login that calls them.
 *
 * @throws HawserError `schema_missing` if there are no such functions; as {@link Database.query}
 */
export async function natsFunctionsSchema(database: Database): Promise<string> {
  const [found] = await database.query<{ readonly schema: string }>("find the SQL functions that reach NATS", {
    text: `SELECT n.nspname AS schema FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
            WHERE p.proname = $1 AND p.prosecdef
              AND p.proowner = (SELECT g.proowner FROM pg_catalog.pg_proc AS g
                                 WHERE g.oid = pg_catalog.to_regprocedure('hawser.gateway_call(text)'))
            ORDER BY 1 LIMIT 1`,
    values: [searchedFunction],
  });
  if (found !== undefined) return found.schema;
  const message = "the database has no SQL functions that reach NATS, or those of an older version; run `hawser init`";
  throw new HawserError("schema_missing", message);
}
