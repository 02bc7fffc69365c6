import { rowsOf } from "../../support/on-server.js";

/** Who owns the schema: hawser_owner, or the role that installed it and could not give it away. */
export async function schemaOwner(databaseUrl: string): Promise<string> {
  const statement = "SELECT pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname = 'hawser'";
  const [row] = await rowsOf(databaseUrl, statement);
  return row!["owner"] as string;
}
