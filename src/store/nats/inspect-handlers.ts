/**
 * What a database has of that by which NATS reaches functions: schemas, view, login, and the functions themselves.
 */
import type pg from "pg";
import { tables } from "../../../generated/ts/rows/nats.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { trustedRoles } from "../schema-trust.js";
import { runSchema, subscriptionsSchema, subscriptionsView } from "./objects.js";
import { tokenTypeSql } from "./wrapper-join.js";

/** All of it. */
export interface HandlersState {
  readonly hasRunSchema: boolean;
  readonly hasSubscriptionsSchema: boolean;
  readonly hasSubscriptionsView: boolean;
  /** What is in the place of something of ours and belongs to others; null if nothing is. */
  readonly occupied: { readonly what: string; readonly owner: string; readonly drop: string } | null;
  /** What is reached, as `public.capture on orders.*`. */
  readonly reached: readonly string[];
  /** The login by which wrappers are called; null where the role may not read which one it is, or it is not known yet. */
  readonly login: ExecutorLogin | null;
  /** The role may make one. */
  readonly makesRoles: boolean;
}

/** The login by which wrappers are called. */
interface ExecutorLogin {
  readonly name: string;
  readonly exists: boolean;
  /** It is in hawser_executor, and `hawser_bridge` in it. */
  readonly joined: boolean;
}

const stateSql = `
  SELECT to_regnamespace('${runSchema}') IS NOT NULL AS "hasRunSchema",
         to_regnamespace('${subscriptionsSchema}') IS NOT NULL AS "hasSubscriptionsSchema",
         EXISTS (
           SELECT FROM pg_class AS v JOIN pg_namespace AS n ON n.oid = v.relnamespace
            WHERE n.nspname || '.' || v.relname = '${subscriptionsView}' AND v.relkind = 'v') AS "hasSubscriptionsView",
         (
           SELECT json_build_object('what', o.what, 'owner', pg_get_userbyid(o.owner), 'drop', 'DROP ' || o.what) FROM (
             SELECT 1 AS nth, 'SCHEMA ' || n.nspname AS what, n.nspowner AS owner, true AS kind
               FROM pg_namespace AS n WHERE n.nspname IN ('${runSchema}', '${subscriptionsSchema}')
             UNION ALL
             SELECT 2, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                         WHEN 'S' THEN 'SEQUENCE' WHEN 'i' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END || ' ${subscriptionsView}',
                    c.relowner, c.relkind = 'v'
               FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname || '.' || c.relname = '${subscriptionsView}'
           ) AS o WHERE NOT o.kind OR o.owner NOT IN ${trustedRoles} ORDER BY o.nth, o.what LIMIT 1
         ) AS occupied,
         ARRAY(
           SELECT left(w.proname, ${-1 - bridgeConstants.wrapperRandomLength}) FROM pg_proc AS w
             JOIN pg_type AS t ON t.oid = w.proargtypes[0] AND t.typnamespace = w.pronamespace AND t.typname = ${tokenTypeSql("w.proname")}
            WHERE w.pronamespace = to_regnamespace('${runSchema}') ORDER BY 1) AS reached,
         (SELECT r.rolsuper OR r.rolcreaterole FROM pg_roles AS r WHERE r.rolname = current_user) AS "makesRoles",
         (
           SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
             FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname || '.' || c.relname = '${tables.executorLogin}' AND c.relkind = 'r'
         ) AS "readsLogin"`;

const loginSql = `
  SELECT l.user_name AS name, r.oid IS NOT NULL AS "exists",
         coalesce(pg_has_role(r.oid, x.oid, 'MEMBER') AND pg_has_role(b.oid, r.oid, 'MEMBER'), false) AS joined
    FROM ${tables.executorLogin} AS l
    LEFT JOIN pg_roles AS r ON r.rolname = l.user_name
    LEFT JOIN pg_roles AS x ON x.rolname = 'hawser_executor'
    LEFT JOIN pg_roles AS b ON b.rolname = 'hawser_bridge'`;

/** Looks at the database as it is. The path of the session is pg_catalog and nothing before it. */
export async function inspectHandlers(client: pg.Client): Promise<HandlersState> {
  const { rows } = await client.query<Omit<HandlersState, "login"> & { readonly readsLogin: boolean | null }>(stateSql);
  const { readsLogin, ...state } = rows[0]!;
  const [login] = readsLogin === true ? (await client.query<ExecutorLogin>(loginSql)).rows : [];
  return { ...state, login: login ?? null };
}
