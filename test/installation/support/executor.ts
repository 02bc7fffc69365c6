/**
 * The login that calls functions for NATS.
 */
import { rowsOf } from "../../support/on-server.js";

/** Its name. */
export const executorOf = async (databaseUrl: string) =>
  (await rowsOf(databaseUrl, "SELECT user_name AS name FROM hawser_bridge_data.executor_login"))[0]!["name"] as string;

/** Query: rights of the login. */
export const loginSql = (name: string) => `
  SELECT rolcanlogin AS login, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication AS more,
         ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid ORDER BY 1) AS roles,
         pg_has_role('hawser_bridge', r.oid, 'MEMBER') AS bridge
    FROM pg_roles AS r WHERE rolname = '${name}'`;
/** Rights that the login must have. */
export const complete = { login: true, more: false, roles: ["hawser_executor"], bridge: true };
