/** What an installation could change in a database. */
import { rowsOf } from "../../support/on-server.js";

/** All objects and privileges of the schema, each with the transaction that wrote it. */
export const objectsSql = `
  SELECT n.xmin::text, n.nspname AS name FROM pg_namespace AS n WHERE n.nspname ~ '^(hawser|pgnats)'
  UNION ALL SELECT c.xmin::text, c.relname FROM pg_class AS c WHERE c.relnamespace IN (to_regnamespace('hawser'), to_regnamespace('hawser_data'), to_regnamespace('hawser_peer_data'), to_regnamespace('hawser_bridge_data')) AND c.relkind IN ('r', 'p', 'v', 'S')
  UNION ALL SELECT a.xmin::text, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid WHERE c.relnamespace IN (to_regnamespace('hawser'), to_regnamespace('hawser_data'), to_regnamespace('hawser_peer_data'), to_regnamespace('hawser_bridge_data'))
  UNION ALL SELECT p.xmin::text, p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace IN (to_regnamespace('hawser'), 'public'::regnamespace)
  UNION ALL SELECT e.xmin::text, e.extname FROM pg_extension AS e
  ORDER BY 2, 1`;

const ownersSql = "SELECT xmin::text, * FROM hawser_data.owners ORDER BY what";

/** The schema and the owners. */
export async function stateOf(url: string): Promise<unknown> {
  const [row] = await rowsOf(url, "SELECT to_regclass('hawser_data.owners') IS NOT NULL AS found");
  return [await rowsOf(url, objectsSql), row?.["found"] === true && (await rowsOf(url, ownersSql))];
}
